"""For `edgekd.backends.litert`: an ONNX file as a LiteRT one, and what LiteRT makes of that."""

"""For `edgekd.backends.executorch`: an ONNX file as a torch module, and that as a program."""

"""Post-training quantization of an ONNX graph that somebody else wrote."""

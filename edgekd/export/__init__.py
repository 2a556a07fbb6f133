"""Writing ONNX with true integers, and proving that it still computes the same."""

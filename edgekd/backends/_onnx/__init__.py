"""Reads ONNX files for every runtime, before the runtime does and beside it."""

"""Turning a float student into integers: observers, fake-quant training, encodings."""

"""Runtimes, one file each: how to build a file for it, open it, and see what it really runs.

A runtime's own helpers are in the folder of its name, ``_litert`` for ``litert.py``; what reads
ONNX files for all of them is in ``_onnx``.
"""

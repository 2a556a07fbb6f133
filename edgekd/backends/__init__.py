"""Runtimes, one file each: how to build a file for it, open it, and see what it really runs."""

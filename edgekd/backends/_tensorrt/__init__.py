"""For `edgekd.backends.tensorrt`, which calls trtexec, and `edgekd.backends.tensorrt_rtx`."""

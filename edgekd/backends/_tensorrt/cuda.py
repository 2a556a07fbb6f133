"""How many GPUs the NVIDIA driver of this machine offers."""

from __future__ import annotations

import ctypes

_DRIVER = "libcuda.so.1"
_SUCCESS = 0


def gpu_count() -> int:
    """0 where there is no driver, or it finds no GPU."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != _SUCCESS or driver.cuDeviceGetCount(ctypes.byref(count)) != _SUCCESS:
        return 0
    return count.value

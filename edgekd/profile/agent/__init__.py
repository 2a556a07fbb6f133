"""What runs on a device: the standard library, numpy and the runtime there, nothing of edgekd.

The modules of this folder are sent to the device as they are, in one message, and import nothing
but each other. `serve` is the process that the connection starts: it keeps the device's lock and
its cache of models, and removes everything else when the connection ends, however it ends.
`worker` is a process of its own for each request. They keep to what Python 3.8 has, since a device
is seldom as new as the machine that a model is made on.

`timing` and `machine` are what edgekd itself measures with, so that a figure means the same
wherever it was made.
"""

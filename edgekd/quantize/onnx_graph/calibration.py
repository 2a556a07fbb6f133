"""Ranges of activations, by running the float model on real inputs with its insides exposed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.backends._contract import BACKENDS
from edgekd.core.target import load_target
from edgekd.quantize.observers import Observer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekd.backends._contract import Feeds
    from edgekd.core.progress import Progress

_FLOAT_TARGET = "x86-onnxruntime-fp32"
#: a large network has hundreds of tensors, so each keeps fewer values than in training
_KEPT_VALUES = 1 << 15


def observe(
    model: Any, tensors: Sequence[str], feeds: Sequence[Feeds], *, seed: int, progress: Progress
) -> dict[str, Observer]:
    """What each tensor holds over all feeds.

    One inference at a time: what is held at once is one sample's activations and a bounded
    sample of values of each tensor, however many feeds there are.

    Args:
        model: Float, after `tidy`; left as it is.
        tensors: Names of graph inputs and of float tensors inside.
        feeds: Of one inference each.
        seed: Of the sampling.
        progress: Gets a bar.

    Raises:
        DataError: An activation is not finite, or the model fails on a feed.
        UnsupportedError: ONNX Runtime refuses the model.
    """
    target = load_target(_FLOAT_TARGET)
    backend = BACKENDS.get(target.backend)()
    observers = {n: Observer(n, seed=seed, kept_values=_KEPT_VALUES) for n in tensors}
    with tempfile.TemporaryDirectory(prefix="edgekd-calibrate-") as folder:
        path = backend.build(_with_outputs(model, tensors), target, Path(folder) / "float")
        with (
            backend.open(path, target, threads=target.conditions.threads) as session,
            progress.bar("calibrate", total=len(feeds)) as bar,
        ):
            for feed in feeds:
                values = {**feed, **session.run(feed)}
                for name, observer in observers.items():
                    found = np.asarray(values[name], np.float32)
                    if found.size:
                        observer.observe(found, share=1 / len(feeds))
                bar.advance()
    return observers


def _with_outputs(model: Any, tensors: Sequence[str]) -> bytes:
    import onnx

    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    known = {i.name for i in tapped.graph.input} | {o.name for o in tapped.graph.output}
    for name in tensors:
        if name not in known:
            info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            tapped.graph.output.append(info)
    data: bytes = tapped.SerializeToString()
    return data

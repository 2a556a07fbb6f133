"""What every backend must do.

A plugin's author runs the same checks::

from edgekd.testing.backends import CHECKS

@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_backend(check, tmp_path):
    check(MyBackend(), my_target, tmp_path)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from edgekd.backends._kernels import count_kernels
from edgekd.core.errors import DataError, EdgekdError, UnsupportedError
from edgekd.testing.onnx_models import (
    CLASSES,
    INPUT,
    INPUT_SHAPE,
    OUTPUT,
    convolution_net,
    with_external_data,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgekd.backends._contract import Backend, Session
    from edgekd.core.target import Target
    from edgekd.core.types import LayerRecord


Check: TypeAlias = "Callable[[Backend, Target, Path], None]"
#: summing in another order moves a float32 logit of size 1 by this much, at most
_FLOAT_TOLERANCE = 1e-4
#: one step of the last activation grid in front of the logits, through weights that sum to 1
_STEP_TOLERANCE = 0.02


def outputs_equal_the_reference_evaluator(backend: Backend, target: Target, folder: Path) -> None:
    """The file computes what the ONNX standard says."""
    model = _model(target)
    expected = ReferenceEvaluator(onnx.load_from_string(model)).run(None, _feeds())[0]
    with _open(backend, target, folder, model) as session:
        got = session.run(_feeds())[OUTPUT]
    tolerance = _FLOAT_TOLERANCE if target.scheme is None else _STEP_TOLERANCE
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance
    assert expected.std() > 10 * _FLOAT_TOLERANCE, "the model must tell inputs apart"


def names_and_shapes_survive(backend: Backend, target: Target, folder: Path) -> None:
    """Inputs and outputs keep the file's own names, types and shapes."""
    with _open(backend, target, folder, _model(target)) as session:
        assert [(i.name, i.dtype, i.shape) for i in session.inputs] == [
            (INPUT, "float32", INPUT_SHAPE)
        ]
        assert [(o.name, o.dtype, o.shape) for o in session.outputs] == [
            (OUTPUT, "float32", (1, CLASSES))
        ]


def an_open_batch_stays_open(backend: Backend, target: Target, folder: Path) -> None:
    """An axis without a size is None, and any size runs; or the model is refused."""
    model = convolution_net(quantized=False, batch="batch")
    try:
        backend.build(model, target, folder / "open")
    except UnsupportedError as e:
        if "leaves an axis open" in e.message:
            return
        raise
    with _open(backend, target, folder, model) as session:
        assert session.inputs[0].shape == (None, *INPUT_SHAPE[1:])
        three = session.run({INPUT: np.repeat(_feeds()[INPUT], 3, axis=0)})[OUTPUT]
    assert three.shape == (3, CLASSES)
    assert np.allclose(three[0], three[2], atol=_FLOAT_TOLERANCE)


def bound_calls_run_and_change_nothing(backend: Backend, target: Target, folder: Path) -> None:
    """`bind` returns a call for its own feeds, whatever ran in between."""
    with _open(backend, target, folder, _model(target)) as session:
        before = session.run(_feeds(1))[OUTPUT]
        calls = [session.bind(_feeds(seed)) for seed in (1, 2)]
        for _ in range(3):
            for call in calls:
                call()
        after = session.run(_feeds(1))[OUTPUT]
        assert not np.array_equal(session.run(_feeds(2))[OUTPUT], after)
    assert np.array_equal(before, after)


def closing_twice_is_fine(backend: Backend, target: Target, folder: Path) -> None:
    """`close` may be called again, also after the context manager did."""
    session = _open(backend, target, folder, _model(target))
    with session:
        pass
    session.close()
    session.close()


def wrong_feeds_are_refused(backend: Backend, target: Target, folder: Path) -> None:
    """Missing names, other dtypes and other shapes are errors, never cast or broadcast."""
    right = _feeds()[INPUT]
    with _open(backend, target, folder, _model(target)) as session:
        for feeds, text in (
            ({}, "lacks the input input"),
            ({"inptu": right}, "Did you mean 'input'"),
            ({INPUT: right.astype(np.float64)}, "wrong type"),
            ({INPUT: right[..., :-1]}, "wrong shape"),
        ):
            _refused(lambda feeds=feeds: session.run(feeds), text)  # type: ignore[misc]
            _refused(lambda feeds=feeds: session.bind(feeds), text)  # type: ignore[misc]


def an_empty_file_is_refused(backend: Backend, target: Target, folder: Path) -> None:
    """0 bytes."""
    path = folder / "empty.onnx"
    path.write_bytes(b"")
    _refused(lambda: backend.open(path, target, threads=1), "is empty")


def a_cut_off_file_is_refused(backend: Backend, target: Target, folder: Path) -> None:
    """Half a file."""
    model = _model(target)
    path = folder / "cut.onnx"
    path.write_bytes(model[: len(model) // 2])
    _refused(lambda: backend.open(path, target, threads=1), "is cut off")


def something_else_is_refused(backend: Backend, target: Target, folder: Path) -> None:
    """A file that never was a model."""
    path = folder / "page.onnx"
    path.write_bytes(b"<html>404: not found</html>")
    _refused(lambda: backend.open(path, target, threads=1), "is not an ONNX file")


def a_file_pointing_outside_its_folder_is_refused(
    backend: Backend, target: Target, folder: Path
) -> None:
    """External data through a parent folder."""
    inner = folder / "inner"
    inner.mkdir()
    (folder / "secret.bin").write_bytes(bytes(4096))
    path = with_external_data(_model(target), inner / "out.onnx", location="../secret.bin")
    _refused(lambda: backend.open(path, target, threads=1), "outside its folder")


def external_data_beside_the_file_is_read(backend: Backend, target: Target, folder: Path) -> None:
    """Weights in a file of their own give the same outputs, and the kernels can be read."""
    model = _model(target)
    path = with_external_data(model, folder / "split.onnx", location="weights.bin")
    with _open(backend, target, folder, model) as whole:
        expected = whole.run(_feeds())[OUTPUT]
    with backend.open(path, target, threads=1) as session:
        assert np.array_equal(session.run(_feeds())[OUTPUT], expected)
    assert backend.layers(path, target, _feeds(), threads=1)


def a_refused_build_leaves_nothing_behind(backend: Backend, target: Target, folder: Path) -> None:
    """`build` writes the artifact whole or not at all."""
    unknown = onnx.load_from_string(_model(target))
    unknown.graph.node[-1].op_type = "NoSuchOperator"
    _refused(
        lambda: backend.build(unknown.SerializeToString(), target, folder / "model"),
        "",
        error=EdgekdError,
    )
    assert list(folder.iterdir()) == []


def kernels_are_counted(backend: Backend, target: Target, folder: Path) -> None:
    """Quantized layers run in int8 under an int8 target, float ones in float with a reason."""
    float_kernels = count_kernels(_layers(backend, target, folder, quantized=False))
    assert (float_kernels.int8, float_kernels.float) == (0, 2)
    assert set(float_kernels.floats.values()) == {"input and weights are float"}
    if target.scheme is not None:
        kernels = count_kernels(_layers(backend, target, folder, quantized=True))
        assert (kernels.int8, kernels.float, kernels.unfused) == (2, 0, 0)
        assert kernels.floats == {}


def layers_have_names_and_times(backend: Backend, target: Target, folder: Path) -> None:
    """Names are unique, and the times are those of one inference."""
    layers = _layers(backend, target, folder, quantized=target.scheme is not None)
    names = [layer.name for layer in layers]
    assert len(set(names)) == len(names)
    times = [layer.time_us for layer in layers if layer.time_us is not None]
    assert all(time >= 0 for time in times)
    assert sum(times) < 1e6, "a second for a tiny network: summed over several runs?"


CHECKS: tuple[Check, ...] = (
    outputs_equal_the_reference_evaluator,
    names_and_shapes_survive,
    an_open_batch_stays_open,
    bound_calls_run_and_change_nothing,
    closing_twice_is_fine,
    wrong_feeds_are_refused,
    an_empty_file_is_refused,
    a_cut_off_file_is_refused,
    something_else_is_refused,
    a_file_pointing_outside_its_folder_is_refused,
    external_data_beside_the_file_is_read,
    a_refused_build_leaves_nothing_behind,
    kernels_are_counted,
    layers_have_names_and_times,
)


#: kept also by a backend whose artifacts this machine cannot run
BUILD_CHECKS: tuple[Check, ...] = (
    an_empty_file_is_refused,
    a_cut_off_file_is_refused,
    something_else_is_refused,
    a_file_pointing_outside_its_folder_is_refused,
    a_refused_build_leaves_nothing_behind,
)


def _model(target: Target, *, quantized: bool | None = None) -> bytes:
    scheme = target.scheme
    if scheme is None or quantized is False:
        return convolution_net(quantized=False)
    return convolution_net(
        quantized=True, codes=scheme.activations, integer_bias=scheme.bias == "int32"
    )


def _feeds(seed: int = 0) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(seed)
    return {INPUT: rng.standard_normal(INPUT_SHAPE).astype(np.float32)}


def _open(backend: Backend, target: Target, folder: Path, model: bytes) -> Session:
    return backend.open(backend.build(model, target, folder / "model"), target, threads=1)


def _layers(
    backend: Backend, target: Target, folder: Path, *, quantized: bool
) -> Sequence[LayerRecord]:
    path = backend.build(_model(target, quantized=quantized), target, folder / "layers")
    return backend.layers(path, target, _feeds(), threads=1)


def _refused(
    call: Callable[[], object], text: str, *, error: type[EdgekdError] = DataError
) -> None:
    try:
        call()
    except error as e:
        message = e.message
    else:
        raise AssertionError(f"nothing was raised; expected {error.__name__} with {text!r}")
    assert text in message, message

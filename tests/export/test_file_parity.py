from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekd.backends.onnxruntime import OnnxRuntime
from edgekd.core.errors import DataError, ParityError, RecipeError
from edgekd.core.progress import Silent
from edgekd.core.target import load_target
from edgekd.core.types import TensorSpec
from edgekd.export.file_parity import OutputParity, class_axes, compare, session_runner
from tests.quantize.onnx_graph.graphs import model, node

FLOAT = load_target("x86-onnxruntime-fp32")
LOGITS, MAP = TensorSpec("y", "float32", (1, 3)), TensorSpec("map", "float32", (1, 3, 8, 8))


def compared(
    folder: Path, first: list, second: list, feeds: list, axes: dict, made: int = 1
) -> OutputParity:
    sessions = []
    for i, nodes in enumerate((first, second)):
        path = folder / f"{i}.onnx"
        proto = onnx.load_from_string(model(nodes, {"k": [0, 0, 0.5], "nan": [np.nan]}, x=(1, 3)))
        proto.graph.output[0].type.tensor_type.elem_type = made
        path.write_bytes(proto.SerializeToString())
        sessions.append(OnnxRuntime().open(path, FLOAT, threads=1))
    given = [{"x": np.float32([f])} for f in feeds]
    runners = [session_runner(session) for session in sessions]
    [found] = compare(*runners, given, axes=axes, title="", progress=Silent())
    for session in sessions:
        session.close()
    return found


def test_numbers_by_hand(tmp_path: Path) -> None:
    feeds = [[3, 4, 0], [0, 0.2, 0]]
    found = compared(
        tmp_path, [node("Identity", "x", "y")], [node("Add", "x k", "y")], feeds, {"y": 1}
    )
    assert (found.name, found.n, found.exact) == ("y", 2, False)
    assert found.snr_db == pytest.approx(10 * np.log10(25.04 / 0.5), rel=1e-5)
    assert found.max_abs == 0.5
    assert found.agreement == 0.5  # the second sample's largest value moved
    assert not found.within(FLOAT.tolerance)


def test_equal_files_are_exact(tmp_path: Path) -> None:
    same = [node("Identity", "x", "y")]
    found = compared(tmp_path, same, same, [[1, 2, 3]], {})
    assert (found.exact, found.snr_db, found.agreement) == (True, None, None)
    assert found.within(FLOAT.tolerance)


def test_equal_integers_are_decisions(tmp_path: Path) -> None:
    to = onnx.TensorProto.INT64
    both = [
        [node("Cast", "x", "y", to=to)],
        [node("Add", "x k", "s"), node("Cast", "s", "y", to=to)],
    ]
    found = compared(tmp_path, *both, [[1, 2, 3], [1, 2, 0.6]], {}, made=to)
    assert found.agreement == pytest.approx(5 / 6)


def test_numbers_that_are_not_finite_break_parity(tmp_path: Path) -> None:
    fine, bad = [node("Identity", "x", "y")], [node("Add", "x nan", "y")]
    with pytest.raises(ParityError, match="quantized file is not finite"):
        compared(tmp_path, fine, bad, [[1, 2, 3]], {})
    with pytest.raises(DataError, match="float model is not finite"):
        compared(tmp_path, bad, fine, [[1, 2, 3]], {})


def test_shapes_that_differ(tmp_path: Path) -> None:
    both = [[node("Identity", "x", "y")], [node("Concat", "x x", "y", axis=0)]]
    with pytest.raises(DataError, match="has another shape in the quantized file"):
        compared(tmp_path, *both, [[1, 2, 3]], {})


def test_which_outputs_decide() -> None:
    assert class_axes([LOGITS, MAP], {}) == {"y": 1}
    assert class_axes([LOGITS, MAP], {"map": 1}) == {"y": 1, "map": 1}
    assert class_axes([TensorSpec("p", "float32", (None, 1))], {}) == {}
    with pytest.raises(RecipeError, match="names no output of the model: 'mpa'"):
        class_axes([LOGITS, MAP], {"mpa": 1})


def test_an_axis_that_is_not_there(tmp_path: Path) -> None:
    same = [node("Identity", "x", "y")]
    with pytest.raises(RecipeError, match="--class-axis y=2: the output has no such axis"):
        compared(tmp_path, same, same, [[1, 2, 3]], {"y": 2})


def test_one_flip_is_allowed_on_few_samples() -> None:
    few = OutputParity("y", 32, False, 40.0, 1.0, 0.1, 0.0, 31 / 32, 32)
    assert few.within(FLOAT.tolerance)
    assert not replace(few, agreement=30 / 32).within(FLOAT.tolerance)
    assert not replace(few, agreement=0.99, decisions=100_000).within(FLOAT.tolerance)

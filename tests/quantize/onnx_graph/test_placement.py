"""Where integers go, on graphs small enough to say it by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgekd.core.errors import UnsupportedError
from edgekd.quantize.onnx_graph.graph import Graph
from edgekd.quantize.onnx_graph.placement import Placement, place
from tests.quantize.onnx_graph.graphs import model, node, read

W = np.ones((2, 2, 1, 1), np.float32)


def placed(tmp_path: Path, nodes: list, weights: dict | None = None, **settings) -> Placement:
    kept = settings.pop("kept", {})
    fenced = settings.pop("fenced", set())
    given = {"w": W, **(weights or {})}
    return place(read(tmp_path, model(nodes, given, **settings)).graph, kept, fenced)


def test_a_rectifier_is_part_of_its_convolution(tmp_path: Path) -> None:
    found = placed(tmp_path, [node("Conv", "x w", "c", "conv"), node("Relu", "c", "y")])
    assert list(found.layers) == ["conv"]
    assert found.grids == ("x", "y")
    assert found.alone == {"x"}
    assert found.skipped == {}


@pytest.mark.parametrize(
    ("low", "high", "absorbed"), [(0, 6, True), (-1, 1, True), (1, 6, False), (-3, 0, False)]
)
def test_a_clip_is_a_rectifier_where_zero_is_inside(
    low: float, high: float, absorbed: bool, tmp_path: Path
) -> None:
    nodes = [node("Conv", "x w", "c", "conv"), node("Clip", "c l h", "y")]
    found = placed(tmp_path, nodes, {"l": np.float32(low), "h": np.float32(high)})
    assert found.grids == (("x", "y") if absorbed else ("x", "c"))


def test_a_rectifier_with_a_second_reader_before_it_is_not(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "c", "conv"),
        node("Relu", "c", "r"),
        node("Add", "c r", "s"),
        node("Conv", "s w", "y", "last"),
    ]
    assert placed(tmp_path, nodes).grids == ("x", "c", "r", "s", "y")


def test_what_moves_values_shares_their_grid(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "c", "conv"),
        node("MaxPool", "c", "p", kernel_shape=[2, 2]),
        node("Transpose", "p", "t", perm=[0, 1, 3, 2]),
        node("Conv", "t w", "y", "last"),
    ]
    found = placed(tmp_path, nodes)
    assert found.grids == ("x", "c", "y")
    assert found.shared == {"p": "c", "t": "c"}


def test_arithmetic_between_integer_layers_is_integer_and_at_the_end_is_not(
    tmp_path: Path,
) -> None:
    nodes = [
        node("Conv", "x w", "c", "conv"),
        node("Sigmoid", "c", "g", "gate"),
        node("Mul", "c g", "m", "product"),
        node("Conv", "m w", "d", "last"),
        node("Sigmoid", "d", "y", "end"),
    ]
    found = placed(tmp_path, nodes)
    assert found.arithmetic == {"gate", "product"}
    assert found.grids == ("x", "c", "g", "m", "d")
    assert found.floats == {"Sigmoid": 1}


def test_arithmetic_with_one_float_source_stays_float(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "c", "conv"),
        node("Exp", "c", "e"),
        node("Mul", "c e", "m", "product"),
        node("Conv", "m w", "y", "last"),
    ]
    found = placed(tmp_path, nodes)
    assert found.arithmetic == frozenset()
    assert found.grids == ("x", "c", "m", "y")
    assert found.alone == {"x", "m"}
    assert found.floats == {"Exp": 1, "Mul": 1}


def test_a_stored_operand_becomes_codes(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "c", "conv"),
        node("Add", "c k", "a", "sum"),
        node("Conv", "a w", "y", "last"),
    ]
    assert placed(tmp_path, nodes, {"k": [1.5]}).operands == ("k",)


def test_a_matrix_product_needs_no_grid_behind_it_unless_it_is_fenced(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "m", "product"), node("Add", "m b", "y")]
    given = {"w": np.ones((4, 3), np.float32), "b": [1, 2, 3]}
    assert placed(tmp_path, nodes, given, x=(1, 4)).grids == ("x",)
    assert placed(tmp_path, nodes, given, x=(1, 4), fenced={"product"}).grids == ("x", "m")


SQUARE = np.ones((4, 4), np.float32)


@pytest.mark.parametrize(
    ("nodes", "weights", "reason"),
    [
        ([node("MatMul", "x x", "y", "n")], {}, "both of its factors are computed"),
        ([node("MatMul", "w x", "y", "n")], {"w": SQUARE}, "its stored factor comes first"),
        (
            [node("MatMul", "x w", "y", "n")],
            {"w": np.ones((2, 4, 4), np.float32)},
            "its weights have 3 axes",
        ),
        (
            [node("Gemm", "x w", "y", "n", alpha=0.5)],
            {"w": SQUARE},
            "a Gemm with transA, alpha or beta",
        ),
        (
            [node("Gemm", "x w b", "y", "n")],
            {"w": SQUARE, "b": [2.0]},
            "a Gemm whose addend is no bias",
        ),
        ([node("Einsum", "x w", "y", "n", equation="ij,jk->ik")], {"w": SQUARE}, "Einsum has no"),
        (
            [node("Relu", "x", "b"), node("Gemm", "x w b", "y", "n")],
            {"w": SQUARE},
            "its bias is computed",
        ),
    ],
)
def test_what_cannot_become_integers_is_named_with_its_reason(
    nodes: list, weights: dict, reason: str, tmp_path: Path
) -> None:
    also = [node("MatMul", "x v", "z", "other")]
    found = placed(tmp_path, nodes + also, {"v": SQUARE, **weights}, x=(4, 4), y=("y", "z"))
    assert list(found.layers) == ["other"]
    assert found.skipped["n"].startswith(reason)
    with pytest.raises(UnsupportedError, match="No layer of the model can be quantized") as e:
        placed(tmp_path, nodes, weights, x=(4, 4))
    assert reason in e.value.got


def test_layers_in_branches_are_named_after_the_node_around_them(tmp_path: Path) -> None:
    def branch(op: str) -> object:
        inner = helper.make_node(op, ["x", "v"], [op], name="inside")
        out = helper.make_tensor_value_info(op, TensorProto.FLOAT, None)
        return helper.make_graph([inner], op, [], [out])

    nodes = [
        node("MatMul", "x v", "z", "other"),
        helper.make_node(
            "If",
            ["flag"],
            ["y"],
            name="if",
            then_branch=branch("MatMul"),
            else_branch=branch("Add"),
        ),
    ]
    weights = {"v": SQUARE, "flag": np.array(True)}
    found = placed(tmp_path, nodes, weights, x=(4, 4), y=("y", "z"))
    assert found.skipped == {"if/inside": "MatMul inside the If 'if'"}


def test_a_kept_layer_breaks_the_stretch_of_integers(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "a", "first"),
        node("Conv", "a w", "b", "middle"),
        node("Conv", "b w", "y", "last"),
    ]
    found = placed(tmp_path, nodes, kept={"middle": "asked for"})
    assert list(found.layers) == ["first", "last"]
    assert found.skipped == {"middle": "asked for"}
    assert found.grids == ("x", "a", "b", "y")
    assert found.alone == {"x", "b"}


def test_a_tensor_read_inside_a_branch_is_known() -> None:
    inner = helper.make_graph(
        [helper.make_node("Relu", ["c"], ["r"])],
        "then",
        [],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
    )
    nodes = [
        node("Conv", "x w", "c"),
        helper.make_node("If", ["f"], ["y"], then_branch=inner, else_branch=inner),
    ]
    import onnx

    graph = Graph(onnx.load_from_string(model(nodes, {"w": W, "f": np.array(True)})))
    assert "c" in graph.inner
    assert graph.only_user("c") is None

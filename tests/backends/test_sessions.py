"""What is particular to one runtime; everything common is in the conformance suite."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgekd.backends._contract import BACKENDS
from edgekd.backends.onnxruntime import OnnxRuntime, session_options
from edgekd.backends.openvino import OpenVino, properties
from edgekd.core.errors import DataError, RecipeError, UnsupportedError
from edgekd.core.target import Target, load_target
from edgekd.testing.onnx_models import IR_VERSION, convolution_net

ORT, OV = load_target("x86-onnxruntime-fp32"), load_target("x86-openvino-fp32")


def with_options(target: Target, **options: str | float | bool) -> Target:
    return target.model_copy(update={"options": options})


def test_onnxruntime_runs_one_stream_on_the_targets_threads() -> None:
    options = session_options(with_options(ORT, **{"session.qdqisint8allowed": True}), 2)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry("session.qdqisint8allowed") == "1"
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


def test_onnxruntime_options_are_configuration_entries() -> None:
    with pytest.raises(RecipeError, match="has an option that ONNX Runtime does not know") as e:
        session_options(with_options(ORT, threads=4), 1)
    assert e.value.got == "threads"


def test_openvino_is_told_its_precision_even_without_an_option() -> None:
    wanted = properties(with_options(OV), 3)
    assert wanted == {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 3,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    assert (
        properties(with_options(OV, INFERENCE_PRECISION_HINT="bf16"), 1)[
            "INFERENCE_PRECISION_HINT"
        ]
        == "bf16"
    )


def test_openvino_options_cannot_change_the_conditions() -> None:
    with pytest.raises(RecipeError, match="sets INFERENCE_NUM_THREADS as an option") as caught:
        properties(with_options(OV, INFERENCE_NUM_THREADS=8), 1)
    assert "conditions.threads" in caught.value.expected


def test_openvino_refuses_a_property_it_does_not_have(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(convolution_net(quantized=False))
    with pytest.raises(UnsupportedError, match="NO_SUCH_PROPERTY"):
        OpenVino().open(path, with_options(OV, NO_SUCH_PROPERTY="x"), threads=1)


def test_a_model_that_fails_while_running_is_explained(tmp_path: Path) -> None:
    """An index beyond the table: no loader can know."""
    node = helper.make_node("Gather", ["table", "index"], ["out"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("index", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 2])],
        [onnx.numpy_helper.from_array(np.zeros((3, 2), np.float32), "table")],
    )
    path = tmp_path / "gather.onnx"
    path.write_bytes(onnx_bytes(graph))
    with OnnxRuntime().open(path, ORT, threads=1) as session:
        with pytest.raises(DataError, match="fails on these inputs") as caught:
            session.run({"index": np.array([7])})
        assert "\n" not in caught.value.got
        assert session.run({"index": np.array([1])})["out"].shape == (1, 2)


def test_text_inputs_run_in_onnxruntime(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["words"], ["same"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("words", TensorProto.STRING, [2])],
        [helper.make_tensor_value_info("same", TensorProto.STRING, [2])],
    )
    path = tmp_path / "text.onnx"
    path.write_bytes(onnx_bytes(graph))
    feeds = {"words": np.array(["a", "b"], object)}
    with OnnxRuntime().open(path, ORT, threads=1) as session:
        assert list(session.run(feeds)["same"]) == ["a", "b"]
        assert session.bind(feeds)() is not None


def test_outputs_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("SequenceConstruct", ["x", "x"], ["pair"])
    pair = helper.make_tensor_sequence_value_info("pair", TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])], [pair]
    )
    path = tmp_path / "sequence.onnx"
    path.write_bytes(onnx_bytes(graph))
    with pytest.raises(UnsupportedError, match="'pair', which is no plain tensor") as caught:
        OnnxRuntime().open(path, ORT, threads=1)
    assert caught.value.got == "seq(tensor(float))"


@pytest.mark.parametrize(("backend", "target"), [(OnnxRuntime, ORT), (OpenVino, OV)])
def test_an_axis_of_length_zero_runs(backend, target: Target, tmp_path: Path) -> None:
    """As the empty cache of a language model's first step."""
    node = helper.make_node("Concat", ["past", "new"], ["present"], axis=1)
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "g",
        [
            info("past", TensorProto.FLOAT, [1, "p", 2]),
            info("new", TensorProto.FLOAT, [1, 1, 2]),
        ],
        [info("present", TensorProto.FLOAT, [1, "q", 2])],
    )
    path = tmp_path / "cache.onnx"
    path.write_bytes(onnx_bytes(graph))
    feeds = {"past": np.zeros((1, 0, 2), np.float32), "new": np.ones((1, 1, 2), np.float32)}
    with backend().open(path, target, threads=1) as session:
        assert session.run(feeds)["present"].shape == (1, 1, 2)
        session.bind(feeds)()


def onnx_bytes(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=IR_VERSION
    )
    data: bytes = model.SerializeToString()
    return data


@pytest.mark.parametrize(("backend", "target"), [(OnnxRuntime, ORT), (OpenVino, OV)])
def test_a_bound_call_keeps_its_feeds_alive(backend, target: Target, tmp_path: Path) -> None:
    """Both runtimes read the array's own memory, so it must outlive everybody else's interest."""
    path = tmp_path / "m.onnx"
    path.write_bytes(convolution_net(quantized=False))
    array = np.zeros((1, 3, 8, 8), np.float32)
    with backend().open(path, target, threads=1) as session:
        before = sys.getrefcount(array)
        call = session.bind({"input": array})
        assert sys.getrefcount(array) > before
        del call
        assert sys.getrefcount(array) == before


@pytest.mark.parametrize("target", [ORT, OV], ids=["onnxruntime", "openvino"])
def test_a_processor_that_is_not_here_is_refused_with_those_that_are(target: Target) -> None:
    elsewhere = target.model_copy(update={"processor": "NPU.7"})
    with pytest.raises(UnsupportedError, match=r"one of .*CPU") as caught:
        BACKENDS.get(target.backend)().check_machine(elsewhere)
    assert "NPU.7" in caught.value.message


def test_a_provider_that_would_leave_nodes_to_the_cpu_is_refused(tmp_path: Path) -> None:
    others = [p for p in onnxruntime.get_available_providers() if p != "CPUExecutionProvider"]
    if not others:
        pytest.skip("this build of ONNX Runtime has no provider but the CPU")
    path = tmp_path / "net.onnx"
    path.write_bytes(convolution_net(quantized=False))
    name = others[-1].removesuffix("ExecutionProvider")
    with pytest.raises(UnsupportedError):
        OnnxRuntime().open(path, ORT.model_copy(update={"processor": name}), threads=1)

"""What `edgekd quantize` decides by what the runtime really does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekd.backends._runtime import check_runtime
from edgekd.core.errors import MissingDependencyError, UnsupportedError
from edgekd.core.progress import Silent
from edgekd.core.target import load_target
from edgekd.profile.measure import MeasureRule
from edgekd.quantize.onnx_graph import reading
from edgekd.steps.integer_file import QuantizeOptions
from edgekd.steps.quantize_file import QuantizedFile, _failures, quantize_file
from tests.quantize.onnx_graph.graphs import model, node

ORT, OV = load_target("x86-onnxruntime-int8"), load_target("x86-openvino-int8")
PHONE = load_target("phone-litert-int8")
QUICK = MeasureRule(percentile=50, min_duration_s=0, max_duration_s=5, block=4)
OPTIONS = QuantizeOptions(
    samples=64,
    ranges="mse",
    weight_bits=8,
    keep_float=(),
    shapes={},
    class_axis={},
    min_snr_db=None,
    min_agreement=None,
)
RNG = np.random.default_rng(0)


def made(folder: Path, data: bytes, target=ORT, shape=(1, 2, 4, 4)) -> QuantizedFile:
    path = folder / "somebody.onnx"
    path.write_bytes(data)
    samples = np.random.default_rng(1).normal(size=(80, *shape[1:])).astype(np.float32)
    np.savez(folder / "data.npz", x=samples)
    return quantize_file(
        path, str(folder / "data.npz"), target, folder / "q.onnx", OPTIONS, QUICK, Silent()
    )


def transposed() -> bytes:
    weights = {
        "w": RNG.normal(size=(4, 2, 3, 3)).astype(np.float32),
        "t": RNG.normal(size=(4, 4, 2, 2)).astype(np.float32),
    }
    nodes = [
        node("Conv", "x w", "c", "conv"),
        node("ConvTranspose", "c t", "u", "up", strides=[2, 2]),
        node("Relu", "u", "y"),
    ]
    return model(nodes, weights)


def test_a_layer_without_an_int8_kernel_goes_back_to_float_where_that_is_so(
    tmp_path: Path,
) -> None:
    in_ort = made(tmp_path, transposed(), ORT)
    assert in_ort.made.quantized.layers == ("conv",)
    [(name, reason)] = in_ort.made.quantized.skipped.items()
    assert name == "up"
    assert reason.startswith("onnxruntime computes it in float all the same: ")
    assert in_ort.failures == ()
    # OpenVINO has such a kernel on some CPUs: either way the file and the runtime agree
    in_ov = made(tmp_path, transposed(), OV)
    assert in_ov.made.kernels.int8 == len(in_ov.made.quantized.layers)
    assert in_ov.made.kernels.float == len(in_ov.made.quantized.skipped)


def test_fewer_bits_are_advised_only_where_they_are_not_there_yet(tmp_path: Path) -> None:
    found = made(tmp_path, transposed())
    far = tuple(replace(output, mean_abs_share=0.9) for output in found.ladder.runtime)
    ladder = replace(found.ladder, runtime=far)
    for bits, advised in ((8, True), (7, False)):
        (failure,) = _failures(ladder, replace(found.made, weight_bits=bits), OPTIONS)
        assert "does not compute what the file says" in failure
        assert ("try --weight-bits 7" in failure) == advised


def test_nothing_is_written_where_no_layer_is_left(tmp_path: Path) -> None:
    weights = {"t": RNG.normal(size=(2, 4, 2, 2)).astype(np.float32)}
    data = model([node("ConvTranspose", "x t", "y", "up", strides=[2, 2])], weights)
    with pytest.raises(UnsupportedError, match="No layer of the model can be quantized") as e:
        made(tmp_path, data, ORT)
    assert "onnxruntime computes it in float all the same" in e.value.got
    assert not (tmp_path / "q.onnx").exists()


def test_a_product_that_the_runtime_would_merge_away_is_fenced(tmp_path: Path) -> None:
    # ONNX Runtime makes one float Gemm of a product and a bias behind it, Q/DQ or not
    weights = {"w": RNG.normal(size=(16, 8)).astype(np.float32), "b": RNG.normal(size=8)}
    weights["b"] = weights["b"].astype(np.float32)
    nodes = [node("MatMul", "x w", "m", "product"), node("Add", "m b", "y")]
    found = made(tmp_path, model(nodes, weights, x=(1, 16)), shape=(1, 16))
    assert found.made.quantized.layers == ("product",)
    assert (found.made.kernels.int8, found.made.kernels.float) == (1, 0)
    assert (found.ladder.total[0].snr_db or 0) > 25


def test_a_converter_that_changes_results_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as the converter does by itself: it forgets that opset 9 scaled from the corner
    nodes = [node("Conv", "x w", "c", "conv"), node("Upsample", "c s", "y", mode="linear")]
    weights = {"w": np.ones((2, 2, 1, 1), np.float32), "s": np.float32([1, 1, 2, 2])}
    data = model(nodes, weights, opset=9)
    assert made(tmp_path, data).made.graph.opset == 13
    monkeypatch.setattr(reading, "_OLD_RESIZE", {})
    with pytest.raises(UnsupportedError, match="from opset 9 to 13 changes what it computes") as e:
        made(tmp_path, data)
    assert " dB on 'y'" in e.value.got


@pytest.mark.parametrize("target", [ORT, OV, PHONE], ids=lambda t: t.backend)
def test_the_runtime_computes_what_the_file_says(target, tmp_path: Path) -> None:
    try:
        check_runtime(target)
    except MissingDependencyError as e:
        pytest.skip(e.failed)
    weights = {
        "w": RNG.normal(size=(8, 2, 3, 3)).astype(np.float32),
        "v": RNG.normal(size=(5, 8)).astype(np.float32),
        "b": RNG.normal(size=8).astype(np.float32),
    }
    nodes = [
        node("Conv", "x w b", "c", "conv"),
        node("Relu", "c", "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f v", "y", "fc", transB=1),
    ]
    found = made(tmp_path, model(nodes, weights), target)
    assert (found.made.kernels.int8, found.made.kernels.float) == (2, 0)
    assert found.ladder.runtime[0].within(target.tolerance)
    assert found.bytes_after != found.bytes_before
    assert [p.source for p in found.profiles] == ["measured", "measured"]
    assert found.explanation.second.categories["matmul int8"].count == 2

"""Reports in trtexec's documented form; all of them were written by hand, none by a GPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.backends._tensorrt import trtexec_reports as reports
from edgekd.core.errors import DeviceError
from edgekd.core.types import TensorSpec

BY_HAND = Path(__file__).parents[2] / "data" / "trtexec_by_hand"
LOGITS = TensorSpec("logits", "float32", (1, 5))
Read = Callable[[Path], Any]


def times(path: Path) -> Any:
    return reports.samples_ns(path, at_least=3)


def layers(path: Path) -> Any:
    return reports.kernels(path, BY_HAND / "profile.json")


def profile(path: Path) -> Any:
    return reports.kernels(BY_HAND / "layers.json", path)


def outputs(path: Path) -> Any:
    return reports.outputs(path, [LOGITS])


READERS: dict[str, Read] = {
    "times": times, "layers": layers, "profile": profile, "outputs": outputs,
}  # fmt: skip


def refused(read: Read, path: Path) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        read(path)
    assert caught.value.exit_code == 6
    assert caught.value.failed == f"The report {path.name} of trtexec cannot be used."
    assert caught.value.todo
    return caught.value


def test_times_are_latencies_in_ns() -> None:
    assert times(BY_HAND / "times.json") == [890_000, 860_000, 1_000_000]


def test_layers_have_their_own_formats_and_times() -> None:
    found = layers(BY_HAND / "layers.json")
    assert [(k.name.split(" ")[0], k.op, k.time_us) for k in found] == [
        ("input/codes", "Reformat Reformat", 5.0),
        ("conv.code", "CaskConvolution Convolution", 20.0),
        ("relu/real", "Reformat Reformat", 5.0),
        ("pool", "kgen", 10.0),
        ("fc", "gemm", 10.0),
        ("unused", "NoOp", None),
    ]
    assert [k.precision() for k in found[:2]] == ["float32", "int8"]
    assert found[1].origins() == ["conv.code/real", "conv", "relu"]
    assert [k.is_boundary for k in found] == [True, False, False, False, True, False]


def test_outputs_have_their_shape_and_type() -> None:
    (found,) = outputs(BY_HAND / "outputs.json").values()
    assert (found.dtype, found.shape) == (np.float32, (1, 5))
    assert found[0].tolist() == pytest.approx([0.25, -1.5, 3, 1e-5, 0])


def test_a_scalar_output_has_no_dimensions(tmp_path: Path) -> None:
    path = tmp_path / "outputs.json"
    path.write_text('[{ "name" : "n", "dimensions" : "", "values" : [ 7 ] }]')
    (found,) = reports.outputs(path, [TensorSpec("n", "int64", ())]).values()
    assert (found.dtype, found.shape, found.item()) == (np.int64, (), 7)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "content",
    [
        b"", b"null", b"7", b"[", b'"times"', b"\x80\xff", b"<html></html>", b"[" * 100_000,
        b"{}", b"[null]", b"[[]]", b"[1e999]",
    ],
    ids=lambda c: repr(c[:12]),
)  # fmt: skip
def test_what_is_no_report_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.json"
    path.write_bytes(content)
    refused(READERS[name], path)


@pytest.mark.parametrize("name", READERS)
def test_half_a_report_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.json"
    whole = (BY_HAND / f"{name}.json").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(READERS[name], path)


@pytest.mark.parametrize("name", READERS)
def test_a_missing_or_huge_report_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"{name}.json"
    assert refused(READERS[name], path).got == "No such file or directory"
    monkeypatch.setattr(reports, "_MAX_BYTES", 5000)
    path.write_bytes(b" " * 5001)
    assert refused(READERS[name], path).got == "5001 bytes"


@pytest.mark.parametrize("value", ["-1", "0", "NaN", "Infinity", "-nan", "1e9", '"1"', "true"])
def test_an_impossible_latency_is_refused(value: str, tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    path.write_text((BY_HAND / "times.json").read_text().replace(": 0.86 ", f": {value} "))
    refused(times, path)


def test_too_few_inferences_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as caught:
        reports.samples_ns(BY_HAND / "times.json", at_least=4)
    assert (caught.value.expected, caught.value.got) == ("4 inferences", "3")


def test_an_engine_that_tells_names_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    path.write_text('{"Layers": ["conv + relu", "fc"], "Bindings": ["input"]}')
    assert refused(layers, path).got.startswith("Layers.0: ")


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda p: p.append({"name": "stranger", "averageMs": 1.0}), "'stranger'"),
        (lambda p: p.append({"count": 3}), "another count"),
        (lambda p: p[1].update(averageMs=-1.0), "1."),
        (lambda p: p[0].update(count=0), "0."),
        (lambda p: p.clear(), "at least 1 item"),
    ],
)
def test_an_impossible_profile_is_refused(
    change: Callable[[Any], None], got: str, tmp_path: Path
) -> None:
    path = tmp_path / "profile.json"
    value = json.loads((BY_HAND / "profile.json").read_text())
    change(value)
    path.write_text(json.dumps(value))
    assert got in refused(profile, path).got


@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"name": "other"}, "other"),
        ({"dimensions": "1x6"}, "5"),
        ({"dimensions": "1x-1"}, "dimensions: String should match"),
        ({"values": [1, 2, 3, 4, "5"]}, "values.4"),
        ({"values": [1, 2, 3, 4, None]}, "values.4"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_an_impossible_output_is_refused(change: Any, got: str, tmp_path: Path) -> None:
    path = tmp_path / "outputs.json"
    (value,) = json.loads((BY_HAND / "outputs.json").read_text())
    path.write_text(json.dumps([{**value, **change}]))
    assert got in refused(outputs, path).got

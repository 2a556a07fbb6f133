from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.core.config import dump_yaml, load_yaml
from edgekd.core.errors import RecipeError
from edgekd.core.target import load_target, shipped_folder, target_names

SHIPPED = target_names()
VALID: dict[str, Any] = {
    "name": "mine",
    "description": "my box",
    "backend": "onnxruntime",
    "runtime": ">=1.20",
    "precision": "int8",
    "scheme": {"activations": "uint8", "bias": "int32"},
    "conditions": {"threads": 1},
    "tolerance": {"mean_abs": 0.05, "agreement": 0.99},
}


def write(folder: Path, name: str = "mine", **changes: Any) -> str:
    value = {k: v for k, v in {**VALID, **changes}.items() if v is not ...}
    path = folder / f"{name}.yaml"
    path.write_text(dump_yaml(value))
    return str(path)


def complaint(path: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_target(path)
    assert caught.value.failed == f"{path} is not valid."
    return caught.value.got


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_target_is_valid(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert target.conditions.threads >= 1
    assert target == load_target(str(shipped_folder("targets") / f"{name}.yaml"))


def test_the_four_promised_targets_are_shipped() -> None:
    promised = {f"x86-{b}-{p}" for b in ("onnxruntime", "openvino") for p in ("fp32", "int8")}
    assert promised <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_target_carries_every_field_once(name: str) -> None:
    written = load_yaml(shipped_folder("targets") / f"{name}.yaml")
    assert written["name"] == name
    assert ("scheme" in written) == name.endswith("int8")


def test_a_users_own_file_is_read(tmp_path: Path) -> None:
    target = load_target(write(tmp_path))
    assert (target.name, target.precision, target.conditions.batch_size) == ("mine", "int8", 1)
    assert target.transport == {"name": "local"}


def test_a_transport_is_a_bare_word_or_a_mapping(tmp_path: Path) -> None:
    assert load_target(write(tmp_path, transport="null")).transport == {"name": "null"}
    spec = {"name": "ssh", "host": "192.168.1.7", "port": 22}
    assert load_target(write(tmp_path, transport=spec)).transport == spec


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(RecipeError) as caught:
        load_target("x86-onnxruntime-int4")
    assert caught.value.failed.startswith(
        "No target named 'x86-onnxruntime-int4'. Did you mean 'x86-onnxruntime-int8'? Known: "
    )
    assert all(name in caught.value.failed for name in SHIPPED)


@pytest.mark.parametrize("name", ["", "../targets/x86-openvino-int8", "/etc/passwd", "x.yaml"])
def test_a_name_never_reads_anything_else(name: str) -> None:
    with pytest.raises(RecipeError):
        load_target(name)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"backnd": "x"}, "backnd: no such field. Did you mean 'backend'? Known: backend, "),
        (
            {"scheme": {"activation": "uint8", "bias": "int32"}},
            "scheme.activation: no such field. Did you mean 'activations'? Known: activations, ",
        ),
        ({"conditions": {"threads": 0}}, "conditions.threads: Input should be greater than or"),
        ({"conditions": {}}, "conditions.threads: is required"),
        ({"precision": "int7"}, "precision: Input should be 'float32' or 'int8', got 'int7'"),
        ({"scheme": ...}, "(top): an int8 target needs a `scheme`, a float32 target has none"),
        ({"precision": "float32"}, "(top): an int8 target needs a `scheme`, a float32 target"),
        ({"tolerance": {"mean_abs": 0, "agreement": 2}}, "tolerance.mean_abs: Input should be "),
        ({"opset": 12}, "opset: Input should be greater than or equal to 13, got 12"),
        ({"transport": 3}, "transport: should be a mapping of `name: value` lines, got 3"),
        ({"transport": {"host": "pi"}}, "transport: a transport needs its name, e.g. {name: ssh"),
        ({"transport": {"name": "ssh", "port": [1]}}, "transport.port: Input should be a valid"),
        ({"options": {"a": [1]}}, "options.a: Input should be a valid string, got [1]; or "),
    ],
    ids=lambda v: None if isinstance(v, str) else "-".join(v),
)
def test_a_wrong_field_is_named_by_its_path(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    lines = [line.strip() for line in complaint(write(tmp_path, **changes)).splitlines()]
    assert any(line.startswith(expected) for line in lines), lines


def test_a_file_under_another_name_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, name="other")
    with pytest.raises(RecipeError, match="carries another target's name") as caught:
        load_target(path)
    assert (caught.value.expected, caught.value.got) == ("name: other", "name: mine")


def test_weights_are_held_to_what_a_cpu_adds_up_exactly() -> None:
    target = load_target("x86-openvino-int8")
    with_vnni, without = target.on(["avx2", "avx512_vnni"]), target.on(["avx2"])
    assert with_vnni == target
    assert with_vnni.scheme is not None
    assert without.scheme is not None
    assert (with_vnni.scheme.weight_bits, without.scheme.weight_bits) == (8, 7)
    assert (with_vnni.scheme.held, without.scheme.held.partition(":")[0]) == ("", "7 bits")
    # another student is trained for it
    assert with_vnni.scheme.training_key != without.scheme.training_key
    # the worst pair of products fits into 16 bits
    assert 2 * 255 * (1 << (without.scheme.weight_bits - 1)) <= np.iinfo(np.int16).max


@pytest.mark.parametrize("name", ["x86-onnxruntime-int8", "x86-openvino-fp32"])
def test_targets_that_are_exact_anywhere_are_the_same_anywhere(name: str) -> None:
    target = load_target(name)
    assert target.on([]) == target

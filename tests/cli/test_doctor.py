from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekd.backends._contract import BACKENDS
from edgekd.cli.main import run
from edgekd.core.errors import MissingDependencyError, UnsupportedError
from edgekd.core.target import shipped_folder
from edgekd.profile import probe as probe_module
from edgekd.steps import low_bits

ORT = "x86-onnxruntime-int8"


def own_target(folder: Path, *changes: tuple[str, str]) -> Path:
    """A user's target: the shipped ORT one under another name, with changes."""
    text = (shipped_folder("targets") / f"{ORT}.yaml").read_text()
    for old, new in ((ORT, "mine"), *changes):
        assert old in text
        text = text.replace(old, new)
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two probes instead of thirteen; returns the operators that were really run."""
    ran: list[str] = []
    real = probe_module._layers

    def layers(op: str, *args: Any) -> Any:
        ran.append(op)
        return real(op, *args)

    monkeypatch.setattr(
        probe_module, "cases", lambda target: [("linear", "per_tensor"), ("matmul", "per_block")]
    )
    monkeypatch.setattr(probe_module, "_layers", layers)
    monkeypatch.setattr(low_bits, "low_bit_cases", lambda target: [])
    return ran


def test_a_table_per_target(few: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--target", ORT]) == 0
    captured = capsys.readouterr()
    assert " cores usable: " in captured.out.splitlines()[0]
    assert f"{ORT} (onnxruntime " in captured.out
    row = next(line for line in captured.out.splitlines() if "linear" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "linear", "8", "-", "per_tensor", "int8 kernel", "",
    ]  # fmt: skip
    assert few == ["linear", "matmul"]


def test_low_bits_are_probed_shown_and_kept(
    few: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = low_bits.LowBits("linear", 2, "packed", "per_channel")
    monkeypatch.setattr(low_bits, "low_bit_cases", lambda target: [asked])
    command = ["doctor", "--target", ORT, "--cache", str(tmp_path / "probes.json")]
    assert run(command) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "packed" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")][:5] == [
        "linear", "2", "packed", "per_channel", "int8 kernel",
    ]  # fmt: skip
    monkeypatch.setattr(low_bits, "low_bit_model", None)  # not made again
    assert run([*command, "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["targets"]
    last = one["rows"][-1]
    assert (last["bits"], last["stored"], last["verdict"]) == (2, "packed", "int8 kernel")


def test_results_are_kept_only_where_asked_and_while_they_hold(
    few: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "probes.json"
    mine = own_target(tmp_path)
    command = ["doctor", "--target", str(mine), "--json"]
    assert run(command) == 0
    assert list(tmp_path.iterdir()) == [mine]
    fresh = json.loads(capsys.readouterr().out)
    assert run([*command, "--cache", str(cache)]) == 0
    assert len(few) == 4
    capsys.readouterr()
    assert run([*command, "--cache", str(cache)]) == 0
    assert len(few) == 4, "taken from the file"
    captured = capsys.readouterr()
    assert json.loads(captured.out) == fresh
    assert f"taken from {cache}" in captured.err
    own_target(tmp_path, ("opset: 20", "opset: 19"))
    assert run([*command, "--cache", str(cache)]) == 0
    assert len(few) == 6, "another target under the same name"
    kept = json.loads(cache.read_text())
    assert list(kept["targets"]) == ["mine"]


def test_the_table_is_whole_when_one_target_cannot_be_used(
    few: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = own_target(tmp_path, ('">=1.20"', '">=99"'))
    assert run(["doctor", "--target", str(mine), "--target", ORT, "--json"]) == 4
    captured = capsys.readouterr()
    assert "The target 'mine' needs another version of onnxruntime." in captured.err
    broken, usable = json.loads(captured.out)["targets"]
    assert (broken["version"], broken["exit_code"], broken["rows"]) == (None, 4, [])
    assert (usable["exit_code"], len(usable["rows"])) == (0, 2)
    assert run(["doctor", "--target", str(mine)]) == 4
    assert "mine (onnxruntime)\ncannot be used here, see below\n" in capsys.readouterr().out


def test_a_missing_runtime_exits_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(target: object) -> tuple[object, str]:
        raise MissingDependencyError("It needs a package.", todo="pip install it")

    monkeypatch.setattr(probe_module, "installed", missing)
    assert run(["doctor", "--target", ORT]) == 3
    assert "It needs a package.\n  to do:    pip install it\n" in capsys.readouterr().err


def test_a_target_whose_runtime_refuses_everything(
    few: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (shipped_folder("targets") / "x86-openvino-int8.yaml").read_text()
    mine = tmp_path / "mine.yaml"
    mine.write_text(text.replace("x86-openvino-int8", "mine").replace("HINT: f32", "HINT: f33"))
    assert run(["doctor", "--target", str(mine), "--json"]) == 4
    captured = capsys.readouterr()
    assert "The target 'mine' refuses every probe." in captured.err
    assert "look at the options in the target's file" in captured.err
    (one,) = json.loads(captured.out)["targets"]
    assert {row["verdict"] for row in one["rows"]} == {"refused"}
    assert all(row["reason"] for row in one["rows"])


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"", "Expecting value"),
        (b"\x80abc", "decode"),
        (b"[]", "is not valid"),
        (b'{"schema_version": 2}', "schema_version"),
        (b"[" * 100_000, "recursion"),
        (b" " * ((4 << 20) + 1), "more than 4 MiB"),
    ],
)
def test_a_file_that_is_no_cache_is_left_alone(
    content: bytes, got: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(content)
    assert run(["doctor", "--target", ORT, "--cache", str(path)]) == 2
    captured = capsys.readouterr()
    assert "other.json is not a cache of `edgekd doctor`." in captured.err
    assert got in captured.err
    assert "to do:    give another file, or delete this one" in captured.err
    assert captured.out == ""
    assert path.read_bytes() == content


def test_no_such_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--target", "x86-onnxruntime-int9"]) == 2
    captured = capsys.readouterr()
    assert "Did you mean 'x86-onnxruntime-int8'" in captured.err
    assert captured.out == ""


def test_without_a_name_a_target_of_another_machine_is_shown_and_no_failure(
    few: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    elsewhere = "gpu-tensorrt-int8"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("edgekd.backends._tensorrt.trtexec.USUAL_FOLDER", str(tmp_path))
    monkeypatch.setattr("edgekd.core.target.target_names", lambda: [elsewhere, ORT])
    assert run(["doctor"]) == 0
    captured = capsys.readouterr()
    assert f"{elsewhere} (tensorrt)\ncannot be used here, see below\n" in captured.out
    assert f"The target {elsewhere!r} cannot run here." in captured.err
    assert run(["doctor", "--target", elsewhere]) == 3
    monkeypatch.setattr("edgekd.core.target.target_names", lambda: [elsewhere])
    assert run(["doctor"]) == 3, "nothing can be used here"


def test_a_runtime_that_only_builds_here_shows_what_it_compiles(
    few: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        BACKENDS.get("tensorrt_rtx")
    except MissingDependencyError as e:
        pytest.skip(e.failed)
    assert run(["doctor", "--target", "rtx-tensorrt-int8", "--json"]) == 4
    captured = capsys.readouterr()
    (one,) = json.loads(captured.out)["targets"]
    assert {(row["op"], row["bits"]): row["verdict"] for row in one["rows"]} == {
        ("linear", 8): "int8 kernel",
        ("matmul", 4): "storage only",
    }
    assert one["version"]
    assert one["holds"]["conv"] == {"kernel": [8], "storage": []}
    assert "cannot be measured" in captured.err
    assert run(["doctor", "--target", "rtx-tensorrt-int8"]) == 4
    text = capsys.readouterr().out
    assert "cannot be measured here, see below\n" in text
    assert "bits in int8 kernels" in text


def test_weights_that_this_cpu_would_overflow_are_held_to_seven_bits(
    few: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = own_target(tmp_path, ("bias: int32", "bias: int32\n  full_range_with: [a_future_one]"))
    for name, bits in ((str(held), 7), (ORT, 8)):
        assert run(["doctor", "--target", name, "--json"]) == 0
        (one,) = json.loads(capsys.readouterr().out)["targets"]
        assert one["weight_bits"] == bits
        assert run(["doctor", "--target", name]) == 0
        said = "weights have 7 bits: its CPU has none of a_future_one"
        assert (said in capsys.readouterr().out) == (bits == 7)


def test_the_cache_does_not_outlive_a_missing_device(
    few: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def gone(self: object, target: object) -> None:
        raise UnsupportedError("No device.")

    command = ["doctor", "--target", ORT, "--cache", str(tmp_path / "cache.json"), "--json"]
    with monkeypatch.context() as patch:
        patch.setattr("edgekd.backends.onnxruntime.OnnxRuntime.check_machine", gone)
        assert run(command) == 4
    (one,) = json.loads(capsys.readouterr().out)["targets"]
    assert (one["problem"], len(one["rows"])) == ("No device.", 2)
    assert run(command) == 0
    (one,) = json.loads(capsys.readouterr().out)["targets"]
    assert (one["problem"], one["exit_code"]) == ("", 0)


def test_a_program_that_is_broken_hides_no_other_target(
    few: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = tmp_path / "trtexec"
    program.write_text("#!/bin/sh\necho broken\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    names = ["gpu-tensorrt-int8", ORT]
    assert run(["doctor", *(f"--target={name}" for name in names), "--json"]) == 6
    captured = capsys.readouterr()
    broken, usable = json.loads(captured.out)["targets"]
    assert (broken["exit_code"], broken["rows"], len(usable["rows"])) == (6, [], 2)
    assert "trtexec does not tell its version" in captured.err

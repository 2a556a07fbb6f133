from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.cli.main import run
from edgekd.core.target import load_target
from edgekd.testing.onnx_models import convolution_net
from tests.profile.transports.conftest import Server, is_clean
from tests.profile.transports.conftest import device as device
from tests.profile.transports.conftest import sshd as sshd

Said = Callable[..., Any]


@pytest.fixture
def said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Said:
    """Run `edgekd device …` in an empty folder; its output, after checking its exit code."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str | Path | int, code: int = 0, err: str = "") -> str:
        capsys.readouterr()
        assert run(["device", *map(str, words)]) == code
        captured = capsys.readouterr()
        assert err in captured.err
        assert "Traceback" not in captured.err
        return captured.out

    return call


def reached(server: Server, folder: Path) -> list[str]:
    import sys

    spec = server.transport(folder)
    return [
        "--host", spec["host"], "--port", str(spec["port"]), "--user", spec["user"],
        "--identity", spec["identity"], "--known-hosts", spec["known_hosts"],
        "--python", sys.executable, "--storage", str(folder),
    ]  # fmt: skip


def test_add_writes_a_target_that_list_shows(said: Said, tmp_path: Path) -> None:
    out = said("add", "pi", "--host", "192.168.1.7", "--user", "me", "--port", "2222")
    assert out.startswith("devices/pi.yaml: ssh me@192.168.1.7\n")
    target = load_target(str(tmp_path / "devices" / "pi.yaml"))
    assert target.transport == {
        "name": "ssh", "host": "192.168.1.7", "user": "me", "port": 2222,
    }  # fmt: skip
    like = load_target("x86-onnxruntime-int8")
    assert target == like.model_copy(update={"name": "pi", "transport": target.transport})
    said("add", "phone", "--serial", "0A1B", "--like", "x86-openvino-fp32", "--json")
    (tmp_path / "devices" / "broken.yaml").write_text("name: broken\n")
    rows = {row["name"]: row for row in json.loads(said("list", "--json"))}
    assert list(rows) == ["broken", "phone", "pi"]
    assert rows["pi"]["reached"] == "ssh me@192.168.1.7"
    assert (rows["phone"]["reached"], rows["phone"]["backend"]) == ("adb 0A1B", "openvino")
    assert "is not valid" in rows["broken"]["problem"]
    assert "ssh me@192.168.1.7" in said("list")


def test_an_empty_folder_says_how_to_go_on(said: Said) -> None:
    assert "edgekd device add NAME --host HOST" in said("list")
    assert json.loads(said("list", "--json")) == []


def test_a_relative_key_is_written_with_its_whole_path(said: Said, tmp_path: Path) -> None:
    said("add", "pi", "--host", "pi", "--identity", "keys/mine")
    target = load_target(str(tmp_path / "devices" / "pi.yaml"))
    assert target.transport["identity"] == str(tmp_path / "keys" / "mine")


def test_a_file_is_replaced_only_when_asked(said: Said) -> None:
    said("add", "pi", "--host", "a")
    said("add", "pi", "--host", "b", code=2, err="There is a file devices/pi.yaml already.")
    said("add", "pi", "--host", "b", "--replace")
    assert "ssh b" in said("list")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["add", "pi"], "one of --host HOST (ssh) and --serial SERIAL (adb)"),
        (["add", "pi", "--host", "a", "--serial", "b"], "It is not clear how"),
        (["add", "../pi", "--host", "a"], "A device cannot be called '../pi'"),
        (["add", "x86-openvino-int8", "--host", "a"], "no name of a shipped target"),
        (["add", "pi", "--host=-oProxyCommand=x"], "host: "),
        (["add", "pi", "--serial", "x", "--user", "me"], "user: no such field"),
        (["add", "pi", "--host", "a", "--like", "nothing"], "No target named 'nothing'"),
        (["check", "pi"], "No target named 'pi'"),
        (["learn", "pi"], "It is not clear how"),
    ],
)
def test_mistakes_are_explained(words: list[str], text: str, said: Said, tmp_path: Path) -> None:
    assert said(*words, code=2, err=text) == ""
    assert not (tmp_path / "devices").exists()


def test_check_and_learn_over_ssh_and_then_profile(
    said: Said, sshd: Server, device: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said("add", "pi", *reached(sshd, device))
    (checked,) = json.loads(said("check", "pi", "--json"))
    assert checked["ok"]
    assert checked["runtime"] == checked["runtimes"]["onnxruntime"]
    assert checked["free_bytes"] > 0 < checked["memory_bytes"]
    assert checked["machine"]["cpu"]
    assert checked["state"].keys() >= {"load_average", "governor", "temperatures_c"}
    text = said("check", "pi")
    assert f"Python {checked['machine']['python']}" in text
    assert "is in the target's range" in text

    assert "devices/pi.yaml: onnxruntime" in said("learn", "pi")
    written = (tmp_path / "devices" / "pi.yaml").read_text()
    assert written.startswith(f"# {checked['machine']['cpu']}, ")
    target = load_target(str(tmp_path / "devices" / "pi.yaml"))
    assert target.runtime == f">={checked['runtime']}"
    assert checked["machine"]["cpu"] in target.description
    assert is_clean(device)

    (tmp_path / "net.onnx").write_bytes(convolution_net(quantized=True))
    quick = ["--percentile", "50", "--min-duration", "0", "--json"]
    assert run(["profile", "net.onnx", "--target", "devices/pi.yaml", *quick]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["environment"]["transport"] == "ssh"


def test_check_of_this_machine(said: Said) -> None:
    (checked,) = json.loads(said("check", "x86-openvino-fp32", "--json"))
    assert checked["backend"] == "openvino"
    assert checked["runtimes"]["numpy"]


def test_one_device_out_of_reach_does_not_hide_another(said: Said, sshd: Server) -> None:
    said("add", "away", "--host", "no-such-host.invalid")
    out = said(
        "check", "away", "x86-onnxruntime-fp32", "--json", code=6, err="There is no host of the"
    )
    assert [one["ok"] for one in json.loads(out)] == [False, True]

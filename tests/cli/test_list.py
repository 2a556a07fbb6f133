from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgekd.cli.list import KINDS, PLUGIN_KINDS, details, registry, summaries
from edgekd.cli.main import run
from edgekd.core.errors import MissingDependencyError


def test_everything_is_listed_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line and not line.startswith(" ")] == list(KINDS)
    for kind in KINDS:
        for name, line in summaries(kind).items():
            assert any(row.split() == [name, *line.split()] for row in out.splitlines())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_members_and_each_says_what_it_is(kind: str) -> None:
    found = summaries(kind)
    assert len(found) >= 1
    assert all(len(line) > 10 for line in found.values()), found


def test_one_kind_is_listed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "targets", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"targets": summaries("targets")}


def test_json_holds_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == list(KINDS)
    assert "digits" in found["sources"]
    assert {"hard_label", "logits_kl", "feature_mse"} <= found["objectives"].keys()


def test_a_target_is_shown_with_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "targets", "x86-openvino-int8"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("x86-openvino-int8 (targets)\n\nOpenVINO CPU on x86-64, int8\n")
    assert "\n  activations: uint8\n" in out


def test_a_plugin_is_shown_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "objectives", "logits_kl"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("logits_kl (objectives)\n\n")
    assert "\n  temperature: float > 0" in out
    assert "\n      T; higher shows the student more of the small probabilities." in out
    assert "Attributes:" not in out


def test_a_plugin_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "objectives", "logits_kl", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["name"]) == ("objectives", "logits_kl")
    [temperature] = [f for f in found["fields"] if f["name"] == "temperature"]
    assert temperature["default"] == 4.0
    assert not temperature["required"]


@pytest.mark.parametrize(
    ("kind", "name"), [(k, n) for k in PLUGIN_KINDS for n in registry(k).names()]
)
def test_every_plugin_describes_itself_and_each_of_its_fields(kind: str, name: str) -> None:
    try:
        found = details(kind, name)
    except MissingDependencyError as e:
        pytest.skip(e.failed)
    assert len(found["text"]) > 10
    silent = [f["name"] for f in found["fields"] if not f["description"]]
    assert silent == []


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["list", "famlies"], "There is no kind 'famlies' to list. Did you mean 'families'?"),
        (["list", "families", "resnt"], "No student family named 'resnt'. Did you mean 'resnet'?"),
        (["list", "targets", "x86"], "No target named 'x86'"),
    ],
)
def test_an_unknown_name_is_explained(
    args: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(args) == 2
    assert capsys.readouterr().err.startswith(text)


WITHOUT_FRAMEWORKS = """
import sys
BLOCKED = {"torch", "onnx", "onnxruntime", "openvino", "sklearn", "altair", "scipy", "tensorrt"}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from edgekd.cli.main import main
main()
"""


def bare(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_FRAMEWORKS, *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_listing_works_with_no_framework_installed() -> None:
    done = bare("list", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {kind: summaries(kind) for kind in KINDS}
    assert bare("list", "targets", "x86-onnxruntime-int8").returncode == 0


def test_a_plugin_without_its_framework_says_what_to_install() -> None:
    done = bare("list", "families", "resnet")
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        "The student family 'resnet' needs the package 'torch', which is not installed.",
        "  to do:    pip install torch",
    ]

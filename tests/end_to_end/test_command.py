"""The command: exit codes, what goes to stdout and what to stderr, and a recipe of one's own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgekd.core.config import dump_yaml
from edgekd.recipe import load_recipe
from edgekd.recipes import builtin_text
from tests.end_to_end.conftest import IMAGES

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Finished, Said

Command = Callable[..., "Said"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "images.yaml").write_text(dump_yaml(IMAGES))
    return tmp_path / "images.yaml"


def test_0_when_every_budget_is_met(command: Command, recipe: Path, images_again: Path) -> None:
    said = command("compress", recipe, "--out", images_again)
    assert said.code == 0, said.err
    assert said.out.startswith("images: met. Every budget is met on 2 targets.")
    for target in IMAGES["targets"]:
        assert f"{target} " in said.out
    assert said.out.rstrip().endswith(f"report: {images_again / 'report.html'}")


def test_1_and_the_closest_point_when_not(
    command: Command, recipe: Path, images_again: Path
) -> None:
    said = command("compress", recipe, "--out", images_again, "--budget", "p90<=0.00001ms")
    assert said.code == 1, said.err
    text = " ".join(said.out.split())
    assert text.startswith("images: not met. ")
    assert re.search(r"Closest: p90 \S+ µs against 0\.01 µs on x86-\w+-int8, \S+ the limit", text)
    verdict = json.loads((images_again / "verdict.json").read_text())
    assert verdict["met"] is False
    assert [t["met"] for t in verdict["targets"]] == [False, False]
    budget = next(b for b in verdict["targets"][0]["budgets"] if b["name"] == "p90")
    assert (budget["limit"], budget["met"]) == (1e-5, False)


def test_a_percentile_without_enough_samples_is_a_budget_missed_with_the_number_needed(
    command: Command, recipe: Path, images: Finished, images_again: Path
) -> None:
    # 64 samples suffice for the p90 that this recipe measures; some files get more in their turns
    n = min(t.measured.latency_ms.p99.n for t in images.report.targets)
    if n >= 662:
        pytest.skip("the machine took enough samples for a p99")
    said = command("compress", recipe, "--out", images_again, "--budget", "p99<=1s")
    assert said.code == 1, said.err
    assert "needs 662 samples" in (images_again / "verdict.json").read_text()


def test_json_is_the_verdict_and_nothing_else(
    command: Command, recipe: Path, images_again: Path
) -> None:
    said = command("compress", recipe, "--out", images_again, "--json")
    assert said.code == 0
    assert said.out == (images_again / "verdict.json").read_text()


def test_the_installed_command_does_the_same(recipe: Path, images_again: Path) -> None:
    program = Path(sys.executable).with_name("edgekd")
    assert program.is_file(), "the console script is not installed"
    done = subprocess.run(
        [program, "compress", recipe, "--out", images_again, "--budget", "size<=1KiB"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Closest: size " in done.stdout
    assert done.stderr == ""  # nothing was done, so there was nothing to tell


def test_init_writes_a_recipe_that_is_valid_and_commented(
    command: Command, tmp_path: Path
) -> None:
    said = command("init", "my.yaml")
    assert (said.code, said.err) == (0, "")
    assert said.out == "wrote my.yaml; run it with: edgekd compress my.yaml\n"
    assert (tmp_path / "my.yaml").read_text() == builtin_text("digits")
    assert load_recipe(tmp_path / "my.yaml")[0] == load_recipe("digits")[0]


@pytest.mark.slow
def test_what_init_writes_runs(command: Command, tmp_path: Path) -> None:
    command("init", "my.yaml")
    sets = ["seeds=1", "teacher.train.epochs=8", "distill.epochs=8", "quantize.train.epochs=2"]
    changes = [word for change in sets for word in ("--set", change)]
    budgets = ["p90<=1s", "size<=1MiB", "peak_memory<=8GiB", "accuracy_drop<=100pt"]
    more = [word for budget in budgets for word in ("--budget", budget)]
    said = command("compress", "my.yaml", *changes, *more)
    assert said.code == 0, said.err
    verdict = json.loads((tmp_path / "runs" / "digits" / "verdict.json").read_text())
    for target in verdict["targets"]:
        assert target["kernels"]["float"] == 0
        assert target["accuracy"]["artifact"] > 0.8

"""`edgekd compress`, as one sentence: read `_run`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.core.progress import Progress, Silent
from edgekd.core.stages import Run
from edgekd.recipe import load_recipe
from edgekd.steps import check, explain, learn, measure, pace, prove, ship, shrink, teach
from edgekd.steps.conclude import conclude, write
from edgekd.steps.job import Job, open_job

if TYPE_CHECKING:
    from edgekd.report.model import Report

RUNS = "runs"


def compress(
    recipe: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    targets: Sequence[str] = (),
    budgets: Sequence[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Turn a teacher, data, targets and budgets into proven artifacts.

    Writes ``report.html``, ``report.json``, ``verdict.json`` and ``artifacts/`` into the run
    folder. Called again, also after a kill, it continues and redoes only what depends on a
    change. Whether the budgets are met is in the report (`met`), not an exception.

    Args:
        recipe: A built-in name ("digits"), the path of a YAML file, or its values.
        out: The run folder; ``runs/<recipe name>`` by default.
        overrides: ``"distill.epochs=5"``: dotted path and YAML value.
        targets: Replace the recipe's targets.
        budgets: Added to the recipe's, e.g. ``"p90<=2ms"``; replaces one on the same figure.
        progress: Draws bars; silent by default.

    Returns:
        Everything that was found, every figure beside its source.

    Raises:
        RecipeError: The recipe, data, weights or run folder is not usable.
        MissingDependencyError: A target's runtime is not installed.
        UnsupportedError: A target cannot run the student.
        ParityError: An exported file computes something else than the student.
        DeviceError: The process that measures memory died or hung.

    Example:
        >>> report = compress("digits", out="runs/doc")  # doctest: +SKIP
        >>> report.met, report.targets[0].speedup_p90  # doctest: +SKIP
        (True, 6.1)
    """
    read, folder = load_recipe(recipe, overrides=overrides, targets=targets, budgets=budgets)
    run_folder = Path(out) if out is not None else Path(RUNS) / read.name
    progress = progress or Silent()
    command = _command(recipe, out, overrides, targets, budgets)
    with Run(run_folder, progress) as run:
        return _run(open_job(read, folder, run, progress), command)


def _run(job: Job, command: str) -> Report:
    check.check_views(job)
    check.check_bits(job)
    pace.check_latency(job)
    teacher = teach.teacher(job)
    check.check_trainings(job, teacher)
    floats = learn.float_students(job, teacher)
    integers = shrink.quantized_students(job, floats.kept, teacher)
    shipment = ship.artifacts(job, floats, integers, teacher)
    proofs = prove.proofs(job, shipment)
    figures = measure.figures(job, shipment)
    causes = explain.explanations(job, shipment, figures)
    report = conclude(job, teacher, floats, integers, shipment, proofs, figures, causes, command)
    write(job, report, shipment)
    return report


def _command(
    recipe: str | Path | Mapping[str, Any],
    out: str | Path | None,
    overrides: Sequence[str],
    targets: Sequence[str],
    budgets: Sequence[str],
) -> str:
    """The command line that does the same."""
    source = "recipe.yaml" if isinstance(recipe, Mapping) else str(recipe)
    words = ["edgekd", "compress", source]
    words += [w for o in overrides for w in ("--set", o)]
    words += [w for t in targets for w in ("--target", t)]
    words += [w for b in budgets for w in ("--budget", b)]
    words += ["--out", str(out)] if out is not None else []
    return shlex.join(words)

"""The tables of bench/paper_students.py, from the parts that are there; says which are missing.

    python bench/paper_tables.py

Writes runs/paper_students.json and runs/resnet20_low_bits.json for bench/update_tables.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from cifar10 import ROOT, Parts
from paper_students import BITS, METHODS, RESNET_EPOCHS, has, part_names

#: points that edgekd may lose against the float student
WANTED = {2: 3.0, 4: 0.5, 8: 0.2}
#: and ResNet-20 against its float self: what APoT loses (Li et al., 2020; 92.96, 92.45, 90.96 %)
RESNET_WANTED = {4: 0.51, 2: 2.0}
SEEDS = {"student3": (0, 1, 2), "student2": (0,)}
#: the seed on whose test score the layout of 2-bit weights was chosen
CHOSEN_ON = {"student3": 0, "student2": None}
STAGES = {"student3": "25-10-10-5", "student2": "50-25-25-10"}


#: results of finished parts, without their weights: a table outlives the machine it was made on
KEPT = ROOT / "bench" / "results" / "cifar10"


class KeptParts(Parts):
    """Parts of this machine's runs, and those that were kept for what is not made here."""

    def result(self, name: str) -> dict[str, Any] | None:
        """See `Parts`."""
        return super().result(name) or Parts(KEPT).result(name)


class Row:
    """One method at one width over the seeds that are there."""

    def __init__(self, parts: Parts, student: str, method: str, bits: int) -> None:
        self.scores, self.sizes = [], []
        #: points against the float student of the same seed, by seed
        self.losses: dict[int, float] = {}
        for seed in SEEDS[student]:
            start = parts.result(f"{student}-seed{seed}")
            found = parts.result(f"{student}-seed{seed}-{method}-{bits}bit")
            if start is not None and found is not None:
                self.scores.append(100 * found["test"])
                self.losses[seed] = 100 * (start["test"] - found["test"])
                self.sizes.append(found["stored_bytes"])

    @property
    def loss(self) -> float:
        """Points against the float student, mean over the seeds."""
        return fmean(self.losses.values())

    def cells(self, kb: str | None = None) -> list[str]:
        """Accuracy, points lost, kB (the largest, unless given) and seeds."""
        spread = f" ({min(self.scores):.2f} to {max(self.scores):.2f})" if self.scores[1:] else ""
        size = kb or f"{max(self.sizes) / 1000:.1f}"
        return [
            f"{fmean(self.scores):.2f}{spread}",
            f"{self.loss:.2f}",
            size,
            f"{len(self.scores)}",
        ]


def paper_table(parts: Parts) -> str:
    lines = [
        "| student | bits | method | test accuracy, % | points lost | kB | seeds |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    verdicts = []
    for student in SEEDS:
        title = f"{STAGES[student]}"
        floats = [parts.result(f"{student}-seed{seed}") for seed in SEEDS[student]]
        there = [found for found in floats if found is not None]
        if not there:
            continue
        kb = f"{4 * there[0]['parameters'] / 1000:.0f}"
        lines.append(_line(title, 32, "float, distilled", [*_floats(there), kb, f"{len(there)}"]))
        control = parts.result(f"{student}-control-seed0")
        if control is not None:
            cells = [f"{100 * control['test']:.2f}", "", kb, "1"]
            lines.append(_line(title, 32, "float, labels alone", cells))
        for bits in sorted(BITS, reverse=True):
            rows = {m: Row(parts, student, m, bits) for m in METHODS if has(m, bits)}
            rows = {m: row for m, row in rows.items() if row.scores}
            lines += [
                _line(title, bits, METHODS[m], row.cells(kb if bits == 32 else None))
                for m, row in rows.items()
            ]
            verdicts += _verdicts(title, bits, rows)
        longer, low = (Row(parts, student, *which) for which in (("longer", 32), ("best", 2)))
        both = sorted(longer.losses.keys() & low.losses.keys())
        if both:
            loss = fmean(low.losses[seed] - longer.losses[seed] for seed in both)
            verdicts.append(
                f"- {title}: against float trained on as long, 2 bits lose {loss:.2f} points"
                f" (seeds: {len(both)})."
            )
        unseen = [loss for seed, loss in low.losses.items() if seed != CHOSEN_ON[student]]
        if unseen and CHOSEN_ON[student] is not None:
            verdicts.append(
                f"- {title}: what edgekd does at 2 bits was chosen on seed {CHOSEN_ON[student]};"
                f" the other {len(unseen)} alone lose {fmean(unseen):.2f} points."
            )
    return "\n".join([*lines, "", *verdicts])


def resnet_table(parts: Parts) -> str:
    lines = [
        "| weights | activations | test accuracy, % | points lost | APoT loses | kB of weights |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    teacher = parts.result("teacher")
    if teacher is None:
        return ""
    verdicts: list[str] = []
    lines.append(f"| float | float | {100 * teacher['test']:.2f} | | | |")
    for bits in RESNET_EPOCHS:
        found = parts.result(f"resnet20-w{bits}a{bits}")
        if found is not None:
            loss = 100 * (teacher["test"] - found["test"])
            lines.append(
                f"| {bits} bits | {bits} bits | {100 * found['test']:.2f} | {loss:.2f}"
                f" | {RESNET_WANTED[bits]:.2f} | {found['stored_bytes'] / 1000:.1f} |"
            )
            met = "met" if loss <= RESNET_WANTED[bits] else "not met"
            verdicts.append(f"- Lose no more than APoT at {bits} bits: {met}.")
    return "\n".join([*lines, "", *verdicts])


def _line(student: str, bits: int, method: str, cells: Sequence[str]) -> str:
    width = "float" if bits == 32 else f"{bits}"
    return f"| {student} | {width} | {method} | {' | '.join(cells)} |"


def _floats(found: Sequence[dict[str, Any]]) -> list[str]:
    scores = [100 * f["test"] for f in found]
    spread = f" ({min(scores):.2f} to {max(scores):.2f})" if scores[1:] else ""
    return [f"{fmean(scores):.2f}{spread}", ""]


def _verdicts(title: str, bits: int, rows: dict[str, Row]) -> list[str]:
    if "best" not in rows:
        return []
    best = rows["best"].loss
    met = "met" if best <= WANTED[bits] else "not met"
    text = f"edgekd at {bits} bits loses {best:.2f} points, wanted at most {WANTED[bits]}: {met}"
    others = {m: rows[m].loss for m in ("qd", "dq") if m in rows}
    if bits == 2 and others:
        half = min(others.values()) / 2
        met = "met" if best <= half else "not met"
        text += f"; at most half of what QD and DQ lose, {half:.2f}: {met}"
    return [f"- {title}: {text}."]


def _provenance(parts: Parts, names: Iterable[str]) -> str:
    found = [part for name in names if (part := parts.result(name)) is not None]
    facts = [part["provenance"] for part in found]
    commits = sorted({fact["commit"][:8] for fact in facts})
    hours = sum(part.get("train_s", 0.0) for part in found) / 3600
    last = max(fact["created_utc"] for fact in facts)[:10]
    return (
        f"{len(found)} parts, {hours:.1f} hours of training on {facts[0]['threads']} thread of"
        f" {facts[0]['cpu']}, torch {facts[0]['torch']}, {last}; commits {', '.join(commits)}."
    )


def write(parts: Parts, runs: Path) -> None:
    """Both tables, with what they were made on and what is missing."""
    names = part_names()
    of_resnet = [name for name in names if name.startswith("resnet20")]
    of_paper = [name for name in names if name not in of_resnet]
    for file, table, mine, sources in (
        ("paper_students", paper_table(parts), of_paper, _sources(of_paper)),
        ("resnet20_low_bits", resnet_table(parts), of_resnet, ["teacher"]),
    ):
        missing = [name for name in [*sources, *mine] if parts.result(name) is None]
        if len(missing) == len(sources) + len(mine):
            continue
        notes = [_provenance(parts, [*sources, *mine])]
        if missing:
            notes.append(f"Not made yet: {_grouped(missing)}.")
        content = {"schema": 1, "missing": missing, "markdown": "\n".join([table, "", *notes])}
        (runs / f"{file}.json").write_text(json.dumps(content, indent=1) + "\n")


def _grouped(names: Sequence[str]) -> str:
    """Parts by the student that they belong to: ``student3-seed1 (qd-2bit, dq-2bit)``."""
    groups: dict[str, list[str]] = {}
    for name in names:
        source, _, part = name.partition("-seed")
        seed, _, part = part.partition("-")
        groups.setdefault(f"{source}-seed{seed}" if seed else source, []).append(part)
    return "; ".join(
        source if "" in parts else f"{source} ({', '.join(parts)})"
        for source, parts in groups.items()
    )


def _sources(names: Iterable[str]) -> list[str]:
    students = dict.fromkeys(name.rsplit("-", 2)[0] for name in names)
    return ["teacher", *students]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    arguments = parser.parse_args()
    write(KeptParts(arguments.runs / "cifar10"), arguments.runs)

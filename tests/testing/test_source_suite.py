"""The conformance suite for sources must fail for one that breaks the contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.tasks._contract import Data
from edgekd.testing import sources


@dataclass(frozen=True)
class Altered:
    """A split that answers differently."""

    split: Any
    batches: Callable[[Any, Any], Any] = lambda split, rows: split.batch(rows)
    relabel: Callable[[Any], Any] = lambda labels: labels

    @property
    def labels(self) -> Any:
        return self.relabel(self.split.labels)

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, rows: Any) -> Any:
        return self.batches(self.split, rows)


class Broken:
    def __init__(self, source: Any, change: Callable[[Data], Data]) -> None:
        self.source, self.change = source, change

    def load(self, folder: Path) -> Data:
        return self.change(self.source.load(folder))


def _batches(function: Callable[[Any, Any], Any]) -> Callable[[Data], Data]:
    return lambda data: replace(data, train=Altered(data.train, batches=function))


def _nan(split: Any, rows: Any) -> Any:
    batch = split.batch(rows)
    batch[-1] = np.nan
    return batch


_KEPT: dict[int, Any] = {}


def _window(split: Any, rows: Any) -> Any:
    return _KEPT.setdefault(len(rows), split.batch(rows))


BREAKS = [
    (sources.gives_finite_inputs_of_one_shape, _batches(_nan)),
    (sources.gives_finite_inputs_of_one_shape, _batches(_window)),
    (sources.gives_finite_inputs_of_one_shape,
     _batches(lambda split, rows: split.batch(rows).astype(np.float64))),
    (sources.gives_finite_inputs_of_one_shape, lambda data: replace(data, input_shape=(5,))),
    (sources.gives_the_samples_asked_for, _batches(lambda s, rows: s.batch(np.sort(rows)))),
    (sources.labels_name_classes, lambda data: replace(data, classes=("a", "b"))),
    (sources.labels_name_classes, lambda data: replace(data, classes=("a", "a", "c"))),
    (sources.labels_name_classes,
     lambda data: replace(data, train=Altered(data.train, relabel=lambda v: v.astype("int32")))),
    (sources.labels_name_classes,
     lambda data: replace(data, train=Altered(data.train, relabel=lambda v: np.minimum(v, 1)))),
    (sources.splits_are_disjoint, lambda data: replace(data, test=data.validation)),
    (sources.loads_the_same_twice,
     lambda data: replace(data, fingerprint=f"{np.random.default_rng().integers(2**60):064x}")),
    (sources.loads_the_same_twice,
     _batches(lambda split, rows: split.batch(rows) + np.random.default_rng().random())),
    (sources.fingerprint_follows_the_content, lambda data: replace(data, fingerprint="0" * 64)),
    (sources.fingerprint_follows_the_content, lambda data: replace(data, fingerprint="short")),
    (sources.settings_survive_a_recipe, lambda data: data),  # a plain class has no settings
]  # fmt: skip


@pytest.mark.parametrize(("check", "change"), BREAKS)
def test_the_suite_sees_what_is_broken(
    check: sources.Check, change: Callable[[Data], Data], tmp_path: Path
) -> None:
    case = sources.example("arrays", tmp_path)
    check(case)
    with pytest.raises(AssertionError):
        check(replace(case, source=Broken(case.source, change)))


def test_every_check_is_tried() -> None:
    assert {check for check, _ in BREAKS} == set(sources.CHECKS)

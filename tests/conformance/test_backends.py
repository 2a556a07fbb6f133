from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekd.backends._contract import BACKENDS
from edgekd.backends._runtime import check_runtime
from edgekd.core.errors import MissingDependencyError, UnsupportedError
from edgekd.core.target import Target, load_target, target_names
from edgekd.testing.backends import BUILD_CHECKS, CHECKS, Check

TARGETS = [load_target(name) for name in target_names()]


def cases() -> list[Any]:
    """All checks where the target can be run here, and else those that need no device."""
    found = []
    for target in TARGETS:
        checks: tuple[Check, ...] = CHECKS
        marks: tuple[pytest.MarkDecorator, ...] = ()
        try:
            BACKENDS.get(target.backend)
            check_runtime(target)
        except (MissingDependencyError, UnsupportedError) as e:
            checks = BUILD_CHECKS
            if target.backend not in BACKENDS._classes:
                marks = (pytest.mark.skip(e.failed),)
        found += [
            pytest.param(check, target, marks=marks, id=f"{target.name}-{check.__name__}")
            for check in checks
        ]
    return found


@pytest.mark.parametrize(("assert_kept", "target"), cases())
def test_backend_keeps_its_contract(assert_kept: Check, target: Target, tmp_path: Path) -> None:
    assert_kept(BACKENDS.get(target.backend)(), target, tmp_path)


def test_every_backend_is_covered_by_a_shipped_target() -> None:
    assert {target.backend for target in TARGETS} == set(BACKENDS.names())

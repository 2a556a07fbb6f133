from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.backends._contract import BACKENDS
from edgekd.core.target import load_target, target_names
from edgekd.testing.backends import CHECKS, Check

TARGETS = [load_target(name) for name in target_names()]


@pytest.mark.parametrize("assert_kept", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_backend_keeps_its_contract(assert_kept: Check, target, tmp_path: Path) -> None:
    assert_kept(BACKENDS.get(target.backend)(), target, tmp_path)


def test_every_backend_is_covered_by_a_shipped_target() -> None:
    assert {target.backend for target in TARGETS} == set(BACKENDS.names())

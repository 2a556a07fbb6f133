from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.tasks._contract import SOURCES
from edgekd.testing.sources import CHECKS, Check, example


@pytest.mark.parametrize("name", SOURCES.names())
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_source_keeps_the_contract(name: str, check: Check, tmp_path: Path) -> None:
    check(example(name, tmp_path))

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgekd.students._contract import FAMILIES, Family, NetSpec
from edgekd.testing.families import CHECKS
from edgekd.testing.objectives import example_fields


@pytest.mark.parametrize("spec", [NetSpec((1, 8, 8), 10), NetSpec((3, 13, 9), 2)], ids=str)
@pytest.mark.parametrize("name", FAMILIES.names())
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_family_keeps_the_contract(
    name: str, check: Callable[[Family, NetSpec], None], spec: NetSpec
) -> None:
    cls = FAMILIES.get(name)
    check(cls(**example_fields(cls)), spec)

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from edgekd.report.model import Figure, Report


def test_a_refused_percentile_carries_its_reason() -> None:
    with pytest.raises(ValidationError, match="a refused percentile carries its reason"):
        Figure(certified=None, empirical=1.0, n=3)
    with pytest.raises(ValidationError, match="a refused percentile carries its reason"):
        Figure(certified=1.0, empirical=1.0, n=3, reason="needs 11 samples, has 3")


def test_nan_is_refused_where_it_is_made() -> None:
    with pytest.raises(ValidationError, match="finite number"):
        Figure(certified=float("nan"), empirical=1.0, n=100)


def test_json_is_strict_and_gives_the_same_report_back(missed_report: Report) -> None:
    text = missed_report.to_json()
    assert text.endswith("}\n")
    assert Report.model_validate(json.loads(text)) == missed_report


def test_json_refuses_nan_in_a_free_form_part(make_report: Callable[..., Report]) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        make_report(environment={"load": float("nan")}).to_json()

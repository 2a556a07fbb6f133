from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.report import format as fmt

UNIT_MS = {"µs": 1e-3, "ms": 1.0, "s": 1e3}


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0.0312, "31.2 µs"),
        (0.00012, "0.120 µs"),
        (0.99949, "999 µs"),
        (0.99996, "1.00 ms"),
        (2.31, "2.31 ms"),
        (999.6, "1.00 s"),
        (1500, "1.50 s"),
        (0, "0 µs"),
    ],
)
def test_duration_picks_the_unit_after_rounding(ms: float, text: str) -> None:
    assert fmt.duration(ms) == text


def test_a_limit_is_written_as_somebody_wrote_it() -> None:
    assert fmt.duration(2.0, exact=True) == "2 ms"
    assert fmt.duration(0.25, exact=True) == "250 µs"
    assert fmt.size(64 * 1024, exact=True) == "64 KiB"
    assert fmt.memory(400, exact=True) == "400 MiB"
    assert fmt.points(1.0, exact=True) == "1 pt"
    assert fmt.in_unit(2.3456789, "ms", exact=True) == "2.3456789 ms"


@given(st.floats(1e-5, 1e6))
def test_duration_is_within_rounding_and_below_a_thousand_of_its_unit(ms: float) -> None:
    number, unit = fmt.duration(ms).split(" ")
    value = float(number.replace(",", ""))
    # three significant digits: off by at most half a unit of the third, 0.5 %
    assert value * UNIT_MS[unit] == pytest.approx(ms, rel=0.00501)
    assert value < 1000 or unit == "s"


@given(st.floats(0, 1))
def test_only_a_true_one_is_a_hundred_percent(fraction: float) -> None:
    text = fmt.percent(fraction)
    assert (text == "100 %") == (fraction == 1)
    assert "100.00" not in text


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (fmt.size(832), "832 B"),
        (fmt.size(11_469), "11.2 KiB"),
        (fmt.size(1023.9 * 1024), "1.00 MiB"),
        (fmt.size(5 * 1024**4), "5,120 GiB"),
        (fmt.memory(183.4), "183 MiB"),
        (fmt.count(1024), "1,024"),
        (fmt.count(176_426), "176 k"),
        (fmt.count(1_234_567), "1.23 M"),
        (fmt.count(999_600_000), "1.00 G"),
        (fmt.percent(0.98611), "98.61 %"),
        (fmt.percent(0.98611, 1), "98.6 %"),
        (fmt.percent(0.999999), ">99.99 %"),
        (fmt.percent(1.5, 0), "150 %"),
        (fmt.points(0.278), "0.28 pt"),
        (fmt.points(0.278, signed=True), "+0.28 pt"),
        (fmt.points(-0.278, signed=True), "−0.28 pt"),
        (fmt.points(-0.001, signed=True), "0.00 pt"),
        (fmt.ratio(7.44), "7.4×"),
        (fmt.ratio(9.96), "10×"),
        (fmt.ratio(1234), "1,234×"),
        (fmt.ratio(0.531), "0.53×"),
        (fmt.difference(0), "0"),
        (fmt.difference(3.1e-5), "3.1e-5"),
        (fmt.difference(0.03124), "0.0312"),
        (fmt.difference(123456.0), "1.2e5"),
        (fmt.seconds(0.034), "0.03 s"),
        (fmt.seconds(9.996), "10 s"),
        (fmt.seconds(59.7), "1 min 00 s"),
        (fmt.seconds(125), "2 min 05 s"),
        (fmt.seconds(3700), "1 h 02 min"),
        (fmt.plural(1, "budget"), "1 budget"),
        (fmt.plural(4, "budget"), "4 budgets"),
        (fmt.short_hash("ab" * 32), "abababababab"),
        (fmt.in_unit(3.0, "joule"), "3.00 joule"),
    ],
)
def test_numbers_as_people_read_them(written: str, text: str) -> None:
    assert written == text


def test_a_number_is_never_broken_from_its_unit_in_html() -> None:
    assert fmt.thin("31.2 µs") == "31.2\u202fµs"
    assert fmt.glued("28.0 KiB on 2 int8 targets, 98.6 % in 3 samples") == (
        "28.0\u202fKiB on 2 int8 targets, 98.6\u202f% in 3 samples"
    )

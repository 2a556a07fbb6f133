"""Bits per layer in every view of the report."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgekd.report import html, markdown
from edgekd.report.layer_bits import (
    BitsOption,
    LayerBits,
    LayerPoints,
    MixedBits,
    MixedTime,
    SharedPoints,
)
from edgekd.report.model import Report

LAYERS = (
    LayerBits(
        layer="stem.conv", weights=72, bits=8, size_bytes=104, options=(), why="rule 'first'"
    ),
    LayerBits(
        layer="block.conv",
        weights=576,
        bits=4,
        size_bytes=320,
        options=(
            BitsOption(bits=2, size_bytes=176, loss_increase=0.5),
            BitsOption(bits=4, size_bytes=320, loss_increase=-0.0012),
        ),
        why="2 bits would take 144 B less and change the loss by +0.5012",
    ),
    LayerBits(
        layer="head<b>", weights=80, bits=None, size_bytes=320, options=(), why="rule 'last'"
    ),
)
MIXED = MixedBits(
    scheme="",
    budget_bytes=1024,
    size_bytes=744,
    predicted_increase=-0.0012,
    samples=1000,
    layers=LAYERS,
)


@pytest.fixture
def report(make_report: Callable[..., Report]) -> Report:
    return make_report(mixed=(MIXED,))


def test_the_page_shows_every_layer_and_why(report: Report) -> None:
    page = html.render(report).replace("\u202f", " ")
    for text in (
        "Bits per layer",
        "<b>−0.0012</b>",
        "+0.5000",
        "2 bits would take 144 B less",
        "head&lt;b&gt;",
        "744 B of 1.00 KiB",
        "predicted: together −0.0012",
    ):
        assert text in page


def test_without_mixed_precision_there_is_no_such_section(met_report: Report) -> None:
    assert "Bits per layer" not in html.render(met_report)
    assert "Bits per layer" not in markdown.render(met_report)


def test_markdown_has_a_row_per_layer(report: Report) -> None:
    text = markdown.render(report)
    assert "| `block.conv` | 576 | 4 | 320 B | +0.5000 | -0.0012 |" in text
    assert "| `head<b>` | 80 | float | 320 B | – | – |" in text
    assert "Bits per layer: 744 B of 1.00 KiB for all weights with their scales." in text


PACED = MixedBits(
    scheme="",
    budget_bytes=None,
    size_bytes=744,
    predicted_increase=0.5,
    samples=1000,
    layers=(
        LayerBits(
            layer="conv",
            weights=576,
            bits=None,
            size_bytes=2304,
            options=(
                BitsOption(
                    bits=4, size_bytes=320, loss_increase=0.25, slower_us=0.4, same_kernels=True
                ),
                BitsOption(
                    bits=8, size_bytes=600, loss_increase=0.125, slower_us=0, same_kernels=True
                ),
                BitsOption(bits=None, size_bytes=2304, loss_increase=0, slower_us=-3.25),
            ),
            why="8 bits would take 1,704 B less",
        ),
    ),
    time=MixedTime(
        budget_ms=2,
        widest_bits=8,
        widest_us=1500,
        repeat_us=12,
        predicted_us=1496.75,
        measured_ms={"phone": 1.75},
        tries=2,
    ),
)


def test_times_say_what_was_measured_and_what_is_a_sum(
    make_report: Callable[..., Report],
) -> None:
    report = make_report(mixed=(PACED,))
    page = html.render(report).replace("\u202f", " ")
    for text in (
        "float",
        "2.25 KiB · −3.2 us",
        "320 B · same kernels",
        "measured as a whole: 1.75 ms on phone (certified median), within the 2 ms asked for",
        "2 choices timed",
        "predicted: 1.50 ms, the time with 8 bits everywhere",
        "4 bits and 8 bits run in the same kernels in every layer and count as equally fast",
        "counted: 744 B for all weights",
    ):
        assert text in page
    text = markdown.render(report)
    assert "+0.2500, same kernels" in text
    assert "+0.0000, −3.2 us" in text
    assert "- predicted: 1.50 ms" in text
    assert Report.model_validate_json(report.to_json()) == report


def test_a_choice_that_was_too_slow_in_the_end_is_called_so(
    make_report: Callable[..., Report],
) -> None:
    assert PACED.time is not None
    late = PACED.time.model_copy(update={"measured_ms": {"phone": 2.5}})
    page = html.render(make_report(mixed=(PACED.model_copy(update={"time": late}),)))
    assert "(certified median), above the" in page


def test_points_are_shown_before_and_after(
    make_report: Callable[..., Report], met_report: Report
) -> None:
    layers = (
        LayerPoints(layer="conv", norm=0.75, before=4, after=6),
        LayerPoints(layer="head<b>", norm=0.25, before=4, after=2),
    )
    report = make_report(points=(SharedPoints(scheme="", samples=320, layers=layers),))
    page = html.render(report)
    for text in ("Codebook points per layer", "head&lt;b&gt;", "<b>6</b>", "320 train samples"):
        assert text in page
    assert "| `head<b>` | 0.250 | 4 | 2 |" in markdown.render(report)
    assert "Codebook points" not in html.render(met_report) + markdown.render(met_report)
    assert Report.model_validate_json(report.to_json()) == report


def test_it_survives_json(report: Report) -> None:
    assert Report.model_validate_json(report.to_json()) == report


def test_an_artifact_is_counted_in_three_ways() -> None:
    from edgekd.report.model import Storage
    from edgekd.report.rows import storage

    whole = Storage(zstd_bytes=17_000, weights=15_000, stored_bytes=15_400, huffman_bytes=14_100)
    assert storage(whole) == (
        "weights with scales 15.0 KiB, Huffman coded 13.8 KiB; zstd makes 16.6 KiB of the file"
    )
    assert storage(Storage(zstd_bytes=900)) == "zstd makes 900 B of the file"
    assert storage(None) == ""

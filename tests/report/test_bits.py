"""Bits per layer in every view of the report."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgekd.report import html, markdown
from edgekd.report.model import BitsOption, LayerBits, MixedBits, Report

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

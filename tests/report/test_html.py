from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from edgekd.report.html import TEMPLATES, render
from edgekd.report.model import Report, TargetResult
from edgekd.report.rows import MAX_LAYERS

VOID = {"meta", "link", "br"}
SELF_CLOSED = {"path", "line", "rect", "circle"}


class Page(HTMLParser):
    """Text of the page, its tags, and whether they nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        """What is read, with ordinary spaces."""
        return " ".join(" ".join(self.words).replace("\u202f", " ").split())


@pytest.fixture(scope="module")
def met(met_report: Report) -> str:
    return render(met_report)


@pytest.fixture(scope="module")
def missed(missed_report: Report) -> str:
    return render(missed_report)


def test_the_proof_comes_first_and_the_provenance_last(met: str) -> None:
    text = Page(met).text
    order = [
        "✓ Met", "Every budget is met on 2 targets.", "smaller than the teacher", "Budgets",
        "Every arm against the teacher", "One inference at a time", "Parity ladder",
        "Q/DQ unfused", "Size and cost", "Skipped layers", "Provenance", "Do it again", "Hashes",
        "Environment", "Stages", "Recipe",
    ]  # fmt: skip
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_every_figure_is_there(met: str, met_report: Report) -> None:
    text = Page(met).text
    for target in met_report.targets:
        p90 = target.measured.latency_ms.p90.certified
        assert p90 is not None
        assert f"{p90 * 1000:.1f} µs p90 certified (n = 1,024)" in text
        assert f"{target.backend} {target.runtime_version}" in text
        assert target.measured.profile in text
        assert target.measured.sha256[:12] in text
        assert target.measured.artifact in text
    for arm in met_report.arms:
        assert arm.title in text
        assert arm.note in text
    for words in (
        "−0.46 pt", "+1.20 pt", "every seed is apart", "98.89 %", "176 k", "684 k", "6.10 M",
        "696 KiB", "None stayed in float.", "None: every layer with weights is quantized.",
        "torch fake-quant", "against ONNX reference", "3.1e-5", "99.72 %", "✓ kept",
        "87.1 MiB is the runtime itself", "9.30 MiB the model", "perf_counter_ns",
        "avx512_vnni", "not readable", "1f1f1f1f1f1f", "nothing it depends on changed",
        "1 min 04 s", "2025-11-20 20:36:05 UTC", "temperature: 4.0",
        "edgekd compress digits --set distill.epochs=40 --out runs/digits",
    ):  # fmt: skip
        assert words in text, words


def test_every_card_with_numbers_says_its_source(met: str) -> None:
    text = Page(met).text
    for words in (
        "measured on this machine", "counted: bytes of the files", "measured: test split",
        "Source computed: difference of the means", "Source measured: logits of both rungs",
        "Source counted: onnxruntime 1.23.2, its own optimized graph",
        "Source counted: parameters and bytes · computed: multiply-accumulates",
        "Source read from the machine that ran it",
    ):  # fmt: skip
        assert words in text, words


def test_what_is_missed_refused_unmeasured_or_noisy_is_said(missed: str) -> None:
    text = Page(missed).text
    for words in (
        "✗ Not met", "2 of 4 targets meet every budget.", "0 of 5 budgets met",
        "Closest: p99 against 400 µs on", "has no figure: needs 662 samples, has 300.",
        "p90 not certified (needs 64 samples, has 20)",
        "peak memory was not measured on this target", "not measured",
        "artifact: p99 is refused (needs 662 samples, has 300)",
        "artifact: noisy, the standard deviation is 38 % of the mean (above 25 %)",
        "First layer that differs: stage2.block1.conv2 (Conv)", "✗ breaks tolerance",
        "its output feeds a Softmax that this runtime keeps in float",
        "stem.conv : first layer kept in float by the recipe",
        "The machine was loaded while measuring", "The recipe sets no budget for this target.",
        "Only one arm was trained", "not known", "The teacher was not timed on this target",
        "A float32 target: no int8 kernel is asked for.", "budget p90 2 ms: outside the picture",
    ):  # fmt: skip
        assert words in text, words


def test_nothing_a_user_named_becomes_markup(missed: str) -> None:
    page = Page(missed)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "<script" not in missed
    assert page.text.count("<script>alert('x')</script>") > 10


@pytest.mark.parametrize("name", ["met", "missed"])
def test_the_page_loads_nothing(name: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(name)
    page = Page(text)
    for tag, attrs in page.tags:
        assert tag not in {"script", "img", "iframe", "object", "embed", "form", "base", "a"}
        assert not {"src", "srcset", "xlink:href", "xmlns"} & set(attrs)
        if "href" in attrs:
            assert (tag, attrs["href"]) == ("link", "data:,")
        assert not [key for key in attrs if key.startswith("on")]
    assert not re.search(r"https?://|url\(|@import|@font-face", text)
    policy = [a for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert str(policy[0]["content"]).startswith("default-src 'none'")


def test_the_same_report_gives_the_same_bytes(met: str, met_report: Report) -> None:
    assert render(met_report) == met


def test_the_page_is_small(met: str, missed: str) -> None:
    # two targets and four: measured at 73 and 101 kB
    assert len(met.encode()) < 200_000
    assert len(missed.encode()) < 250_000


def test_two_thousand_layers_on_four_targets_stay_below_two_megabytes(
    make_report: Callable[..., Report], make_target: Callable[..., TargetResult]
) -> None:
    layers = tuple(
        {"name": f"/model/{'x' * 90}/{i}", "op": "QLinearConv", "precision": "int8",
         "time_us": float(i), "reason": ""}
        for i in range(2000)
    )  # fmt: skip
    many = make_target().model_copy(update={"layers": layers})
    text = render(make_report((many,) * 4))
    assert len(text.encode()) < 2_000_000
    assert f"{2000 - MAX_LAYERS:,} more layers are in report.json" in Page(text).text


def test_simulated_figures_are_never_called_measured(
    make_report: Callable[..., Report], make_target: Callable[..., TargetResult]
) -> None:
    target = make_target(baseline=False)
    own = target.measured.model_copy(update={"source": "simulated"})
    text = Page(render(make_report((target.model_copy(update={"measured": own}),)))).text
    assert "simulated, no clock ran on a device" in text
    assert "measured on this machine" not in text


def test_text_is_readable_in_both_modes() -> None:
    """WCAG AA: 4.5 to 1 for text on every ground it stands on."""
    css = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    light_block, dark_block = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[:2]
    for block in (light_block, dark_block):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})\b", block))
        grounds = {
            "ink": ("page", "card", "soft", "ok-soft", "bad-soft", "warn-soft"),
            "muted": ("page", "card", "soft"),
            "ok": ("card", "ok-soft"),
            "bad": ("card", "bad-soft"),
            "student": ("card",),
        }
        for colour, behind in grounds.items():
            for ground in behind:
                assert contrast(colours[colour], colours[ground]) >= 4.5, (colour, ground)
        for line in ("student", "teacher", "bad"):  # graphics need 3 to 1
            assert contrast(colours[line], colours["card"]) >= 3


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
    linear = []
    for i in (0, 2, 4):
        c = int(digits[i : i + 2], 16) / 255
        linear.append(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

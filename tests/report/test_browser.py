"""What a real browser makes of the page. Continuous integration installs chromium."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from typing import Any

import pytest

from edgekd.report.html import render
from edgekd.report.model import Report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
PHONE_PX = 390
#: goes into the test's own copy of the page; the product has no script
PROBE = """<script>
// a little after the load: the browser lists what was asked for in a task of its own
addEventListener("load", () => setTimeout(() => {
  const root = document.documentElement;
  const own = el => el.closest(".scroll, pre, svg, summary");
  const wide = [...document.querySelectorAll("main, main *")].filter(
    el => !own(el) && getComputedStyle(el).display !== "inline" && el.clientWidth > 0
      && el.scrollWidth > el.clientWidth + 1);
  const outside = [...document.querySelectorAll("svg text")].filter(el => {
    const box = el.getBoundingClientRect(); return box.left < 0 || box.right > innerWidth; });
  parent.document.documentElement.dataset[name] = JSON.stringify({
    inner: innerWidth, scroll: root.scrollWidth, charts: document.querySelectorAll("svg").length,
    clipped: wide.map(el => el.outerHTML.slice(0, 90)),
    outside: outside.map(el => el.textContent),
    requests: performance.getEntriesByType("resource").map(entry => entry.name)});
}, 200));
</script>"""
WIDE = '<img src="http://127.0.0.1:59999/nowhere.png" alt=""><p style="width:700px">wide</p>'

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium binary on PATH")


@pytest.fixture(scope="module")
def phone(
    met_report: Report, missed_report: Report, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What each page says about itself in a frame as wide as a phone, by its name.

    Frames, as a window is never that narrow; all in one page, as a browser starts slowly.
    """
    met, missed = render(met_report), render(missed_report)
    pages = {"met": met, "missed": missed, "broken": met.replace("<main>", f"<main>{WIDE}")}
    frames = [frame(name, page) for name, page in pages.items()]
    folder = tmp_path_factory.mktemp("browser")
    file = folder / "frames.html"
    file.write_text("<!doctype html>" + "".join(frames), encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}",
            "--window-size=1300,1000", "--virtual-time-budget=2000", "--dump-dom", file.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    opening = re.search(r"<html[^>]*>", done.stdout)
    assert opening is not None, done.stderr[-2000:]
    said = dict(re.findall(r'data-(\w+)="([^"]*)"', opening.group()))
    assert set(said) == set(pages)
    return {name: json.loads(html.unescape(text)) for name, text in said.items()}


def frame(name: str, page: str) -> str:
    # the page's own policy would, rightly, stop the probe
    copy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', PROBE, page)
    assert PROBE in copy
    size = f'width="{PHONE_PX}" height="844" style="border:0"'
    return f'<iframe name="{name}" {size} srcdoc="{html.escape(copy)}"></iframe>'


@pytest.mark.parametrize("name", ["met", "missed"])
def test_a_phone_scrolls_only_downwards(phone: dict[str, Any], name: str) -> None:
    found = phone[name]
    assert found["inner"] == PHONE_PX
    assert found["charts"] >= 3
    assert found["scroll"] <= PHONE_PX
    assert found["clipped"] == []
    assert found["outside"] == []


@pytest.mark.parametrize("name", ["met", "missed"])
def test_the_page_asks_the_network_for_nothing(phone: dict[str, Any], name: str) -> None:
    assert phone[name]["requests"] == []


def test_the_probe_sees_a_wide_element_and_a_request(phone: dict[str, Any]) -> None:
    found = phone["broken"]
    assert found["scroll"] > PHONE_PX
    assert found["clipped"] != []
    assert found["requests"] == ["http://127.0.0.1:59999/nowhere.png"]

"""What a real browser makes of the page. Continuous integration installs chromium."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgekd.report.html import render
from edgekd.report.model import Report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
PHONE_PX = 390
#: goes into the test's own copy of the page; the product has no script
PROBE = """<script>
addEventListener("load", () => {
  const root = document.documentElement;
  const own = el => el.closest(".scroll, pre, svg, summary");
  const wide = [...document.querySelectorAll("main *")].filter(
    el => !own(el) && getComputedStyle(el).display !== "inline" && el.clientWidth > 0
      && el.scrollWidth > el.clientWidth + 1);
  const outside = [...document.querySelectorAll("svg text")].filter(el => {
    const box = el.getBoundingClientRect(); return box.left < 0 || box.right > innerWidth; });
  parent.document.documentElement.dataset.probe = JSON.stringify({
    inner: innerWidth, scroll: root.scrollWidth,
    clipped: wide.map(el => el.outerHTML.slice(0, 90)),
    outside: outside.map(el => el.textContent),
    requests: performance.getEntriesByType("resource").map(entry => entry.name)});
});
</script>"""

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium binary on PATH")


def probe(page: str, folder: Path, width_px: int) -> dict[str, Any]:
    """What the page says about itself in a frame of that width (windows are never so narrow)."""
    # the page's own policy would, rightly, stop the probe
    copy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', PROBE, page)
    assert PROBE in copy
    file = folder / "page.html"
    frame = f'<iframe style="border:0" width="{width_px}" height="844" srcdoc="'
    file.write_text(f'<!doctype html>{frame}{html.escape(copy)}"></iframe>', encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}",
            "--window-size=1000,1000", "--dump-dom", file.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    match = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert match is not None, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(html.unescape(match.group(1)))
    assert found["inner"] == width_px
    return found


@pytest.mark.parametrize("name", ["met_report", "missed_report"])
def test_a_phone_scrolls_only_downwards(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    report: Report = request.getfixturevalue(name)
    found = probe(render(report), tmp_path, PHONE_PX)
    assert found["scroll"] <= PHONE_PX
    assert found["clipped"] == []
    assert found["outside"] == []
    assert found["requests"] == []


def test_the_probe_sees_a_wide_element_and_a_request(met_report: Report, tmp_path: Path) -> None:
    broken = render(met_report).replace(
        "<main>",
        '<main><img src="http://127.0.0.1:59999/nowhere.png" alt=""><p style="width:700px">wide</p>',
    )
    found = probe(broken, tmp_path, PHONE_PX)
    assert found["scroll"] > PHONE_PX
    assert [name.rpartition("/")[2] for name in found["requests"]] == ["nowhere.png"]

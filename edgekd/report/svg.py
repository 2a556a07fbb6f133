"""Altair chart -> a small inline SVG that CSS may restyle and that is the same on every run."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from typing import Any

_NUMBER = re.compile(r"-?\d+\.\d+")
_GEOMETRY = {"d", "transform", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "points", "r"}
_DROPPED = {"class", "role", "pointer-events", "font-family", "version", "display", "id"}
_DRAWN = {"path", "line", "rect", "text", "circle"}


def inline_svg(chart: Any, *, label: str) -> str:
    """The chart as one ``<svg>`` element that scales to its container.

    What Vega writes for a stand-alone file is removed: name spaces, fixed size, fonts, roles,
    empty and invisible marks. Coordinates are rounded to a tenth of a pixel.

    Args:
        chart: An altair chart without clipping (clip paths need ids, which clash in one page).
        label: What a screen reader says.
    """
    out = io.StringIO()
    chart.save(out, format="svg")
    root = ET.fromstring(out.getvalue())  # noqa: S314 - made one line above
    view_box = root.attrib["viewBox"]
    _clean(root)
    root.attrib.clear()
    root.attrib.update({"class": "chart", "viewBox": view_box, "role": "img", "aria-label": label})
    return ET.tostring(root, encoding="unicode")


def _clean(element: ET.Element) -> None:
    element.tag = element.tag.rpartition("}")[2]
    for name in list(element.attrib):
        if name in _DROPPED or name.startswith("aria-"):
            del element.attrib[name]
        elif name in _GEOMETRY:
            element.attrib[name] = _NUMBER.sub(_tenth, element.attrib[name])
    if element.attrib.get("opacity") == "1":
        del element.attrib["opacity"]
    for child in list(element):
        _clean(child)
        if not _visible(child):
            element.remove(child)


def _visible(element: ET.Element) -> bool:
    if element.tag not in _DRAWN:
        return len(element) > 0
    if element.attrib.get("opacity") == "0":
        return False
    if element.tag == "text":
        return bool((element.text or "").strip())
    # Vega's frames and backgrounds are paths with neither fill nor stroke
    return "stroke" in element.attrib or "fill" in element.attrib


def _tenth(match: re.Match[str]) -> str:
    # adding 0.0 turns -0.0 into 0.0
    return f"{round(float(match.group()), 1) + 0.0:.1f}".removesuffix(".0")

"""A device that lies: what is not the agent's answer ends as one message, and is not kept."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.core.errors import DeviceError
from edgekd.core.progress import Silent
from edgekd.core.target import load_target
from edgekd.profile.measure import MeasureRule
from tests.profile.transports.conftest import HELLO, Liar, framed, load_on

TARGET = load_target("x86-onnxruntime-int8")
RULE = MeasureRule(percentile=90, min_duration_s=0, max_duration_s=1)
MACHINE = {
    "architecture": "x", "cpu": "x", "cpu_flags": [], "cores_usable": 1, "hypervisor": False,
    "os": "x", "kernel": "x", "python": "3",
}  # fmt: skip
ENVIRONMENT = {"machine": MACHINE, "versions": {}, "state": {"load_average": [0.0]}}


def timed(samples: list[int] | bytes, environment: Any = None, heads: Any = None) -> bytes:
    """An answer to "measure"."""
    body = samples if isinstance(samples, bytes) else struct.pack(f"<{len(samples)}q", *samples)
    default = [["0", "int64", [len(body) // 8]]]
    answer = {"environment": environment or ENVIRONMENT, "arrays": heads or default}
    return framed(json.dumps(answer).encode(), body)


def measured(device: Any, model: Path) -> Any:
    with device:
        return device.measure([load_on(model, TARGET)], RULE, inputs="-", progress=Silent())


def test_an_honest_answer_is_taken(liar: Liar, model: Path) -> None:
    (profile,) = measured(liar(timed([1000] * 64)), model)
    assert profile.samples_ns == (1000,) * 64
    assert profile.environment["machine"] == MACHINE


DEEP = b"[" * 100_000
STATE_OF_A_MEGABYTE = {**ENVIRONMENT, "state": {"x": "y" * 2**15}}
LIES: dict[str, tuple[bytes, str]] = {
    "no line of the agent": (b"samples: 1 2 3\n", "a line that is none of the agent's"),
    "no JSON": (b"edgekd-agent {nonsense\n", "no JSON"),
    "a list": (b"edgekd-agent []\n", "JSON that is no object"),
    "no kind": (b"edgekd-agent {}\n", "a message of no kind"),
    "another kind": (b'edgekd-agent {"kind": "done"}\n', "another message than 'answer'"),
    "a line without end": (b"edgekd-agent " + b"x" * 2**17, "a line without end"),
    "levels without end": (b'edgekd-agent {"kind": ' + DEEP[:50_000] + b"\n", "no JSON"),
    "terabytes": (framed(b"{}", bytes=2**40), "more than the question can give"),
    "a terabyte of text": (framed(b"{}", json=2**40), "more than the question can give"),
    "a negative size": (framed(b"{}", bytes=-1), "a size that is none"),
    "a size in words": (framed(b"{}", bytes="8"), "a size that is none"),
    "a size that is true": (framed(b"{}", bytes=True), "a size that is none"),
    "an answer of levels": (framed(DEEP), "no JSON"),
    "NaN": (framed(b'{"environment": NaN, "arrays": []}'), "no JSON"),
    "no arrays": (framed(b"{}"), "arrays that are none"),
    "arrays of more than came": (
        timed([1000] * 64, heads=[["0", "int64", [10**12]]]), "need more bytes than came"
    ),
    "arrays of less than came": (
        timed([1000] * 64, heads=[["0", "int64", [3]]]), "more bytes came than"
    ),
    "objects": (timed([1000] * 64, heads=[["0", "object", [64]]]), "a head is not"),
    "a shape of true": (timed([1000] * 64, heads=[["0", "int64", [True]]]), "a head is not"),
    "heads of numbers": (timed([1000] * 64, heads=[7]), "arrays that are none"),
    "one name twice": (timed([1] * 2, heads=[["0", "int64", [1]]] * 2), "a head is not"),
    "samples of others": (timed([1000] * 64, heads=[["9", "int64", [64]]]), "samples of 1 models"),
    "samples as floats": (timed([1000] * 64, heads=[["0", "float64", [64]]]), "no list of whole"),
    "samples in rows": (timed([1000] * 64, heads=[["0", "int64", [8, 8]]]), "no list of whole"),
    "no samples": (timed([]), "no list of whole"),
    "samples of nothing": (timed([0] * 64), "no clock can have given"),
    "samples of the past": (timed([-5] * 64), "no clock can have given"),
    "a part of the samples": (timed([1000] * 63), "63 samples, fewer than were asked for"),
    "samples of a century": (timed([10**17] * 64), "longer together than the whole question"),
    "no machine": (timed([1000] * 64, {"machine": {}}), "a wrong environment.machine."),
    "more than a machine": (timed([1000] * 64, {**ENVIRONMENT, "x": 1}), "a wrong environment.x"),
    "a cpu of control characters": (
        timed([1000] * 64, {**ENVIRONMENT, "machine": {**MACHINE, "cpu": "\x1b[2J"}}),
        "a wrong environment.machine.cpu",
    ),
    "a cpu of a megabyte": (
        timed([1000] * 64, {**ENVIRONMENT, "machine": {**MACHINE, "cpu": "x" * 2**16}}),
        "a wrong environment.machine.cpu",
    ),
    "a state of control characters": (
        timed([1000] * 64, {**ENVIRONMENT, "state": {"governor": ["\x1b[2J"]}}),
        "a state that is not to be printed",
    ),
    "a state of a megabyte": (timed([1000] * 64, STATE_OF_A_MEGABYTE), "a state of many bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_not_believed(name: str, liar: Liar, model: Path) -> None:
    answer, text = LIES[name]
    with pytest.raises(DeviceError) as caught:
        measured(liar(answer), model)
    assert caught.value.exit_code == 6
    assert "gives an answer that edgekd does not believe" in caught.value.failed
    assert text in caught.value.got
    assert caught.value.message.isprintable() or "\n" in caught.value.message


HELLOS: dict[str, tuple[bytes, str]] = {
    "another schema": (HELLO.replace("/1", "/9").encode(), "another schema"),
    "another program": (b"Password: \n" * 10_000, "a line that is none of the agent's"),
    "rubbish": (bytes(range(256)) * 1000, "a line that is none of the agent's"),
}


@pytest.mark.parametrize("name", HELLOS)
def test_what_is_no_agent_is_not_asked(name: str, liar: Liar, model: Path) -> None:
    hello, text = HELLOS[name]
    with pytest.raises(DeviceError) as caught:
        measured(liar(hello=hello), model)
    assert text in caught.value.got


def test_words_of_a_login_before_the_agent_are_skipped(liar: Liar, model: Path) -> None:
    hello = b"Welcome to Pi OS!\r\n\r\nlast login: never\n" + HELLO.encode()
    (profile,) = measured(liar(timed([1000] * 64), hello), model)
    assert len(profile.samples_ns) == 64


@pytest.mark.parametrize("answer", [b"", framed(b"{}", bytes=64)[:-5], b"edgekd-agent {"])
def test_an_answer_that_never_ends_is_waited_for_only_so_long(
    answer: bytes, liar: Liar, model: Path
) -> None:
    device = liar(answer, timeout_s=0.3)
    start_s = time.monotonic()
    with pytest.raises(DeviceError, match="does not answer any more"), device:
        device._connection.work({}, b"", {}, limit_s=-14.5, most_bytes=100, read=lambda a, b: a)
    assert time.monotonic() - start_s < 10


def test_what_a_device_says_is_printed_tame(liar: Liar, model: Path) -> None:
    said = "\x1b[2J\x07 rm -rf\n\u202e" + "x" * 9999
    answer = framed(json.dumps({"error": {"code": "failed", "text": said}}).encode())
    with pytest.raises(DeviceError) as caught:
        measured(liar(answer), model)
    assert caught.value.failed == "The model fails on the pipe."
    assert caught.value.got.isprintable()
    assert len(caught.value.got) <= 300
    odd = framed(json.dumps({"error": {"code": "{place.__class__}", "text": ""}}).encode())
    with pytest.raises(DeviceError, match=r"The model fails on the pipe\."):
        measured(liar(odd), model)


OTHERS: dict[str, tuple[Callable[..., Any], bytes, bytes]] = {
    "outputs of other names": (
        lambda d, x: d.run(x), b'{"arrays": [["evil", "float32", [3, 1]]]}', bytes(12)
    ),
    "outputs of fewer inferences": (
        lambda d, x: d.run(x), b'{"arrays": [["logits", "float32", [2, 1]]]}', bytes(8)
    ),
    "a scalar": (lambda d, x: d.run(x), b'{"arrays": [["logits", "float32", []]]}', bytes(4)),
    "a peak below the runtime": (
        lambda d, x: d.memory(x), b'{"arrays": [], "runtime_mib": 9, "peak_mib": 8}', b""
    ),
    "memory without end": (
        lambda d, x: d.memory(x), b'{"arrays": [], "runtime_mib": 9, "peak_mib": 1e300}', b""
    ),
    "memory with an attachment": (
        lambda d, x: d.memory(x),
        b'{"arrays": [["x", "int8", [1]]], "runtime_mib": 9, "peak_mib": 10}',
        b"x",
    ),
    "layers of rubbish": (
        lambda d, x: d.layers(x),
        b'{"arrays": [["events", "uint8", [2]], ["graph", "uint8", [2]]]}',
        b"[]\xff\xff",
    ),
    "no layers": (lambda d, x: d.layers(x), b'{"arrays": []}', b""),
    "a wrong description": (lambda d, x: d.environment(), b'{"arrays": []}', b""),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_lies_about_other_things(name: str, liar: Liar, model: Path) -> None:
    ask, answer, body = OTHERS[name]
    with liar(framed(answer, body)) as device, pytest.raises(DeviceError) as caught:
        ask(device, load_on(model, TARGET))
    assert "gives an answer that edgekd does not believe" in caught.value.failed


def test_files_that_nobody_asked_for_are_not_sent(liar: Liar, model: Path) -> None:
    hello = HELLO.encode() + b'edgekd-agent {"kind": "missing", "files": ["/etc/shadow"]}\n'
    with pytest.raises(DeviceError) as caught:
        measured(liar(hello=hello), model)
    assert "files that nobody asked for" in caught.value.got

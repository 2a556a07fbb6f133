"""What costs time in a model, as its layers and the machine show it; no guess is a finding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekd.profile.breakdown import category, spent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgekd.profile.breakdown import Breakdown, Explained, Pair

#: instruction sets that multiply 8-bit integers and add up in one step
INT8_FLAGS = {
    "x86_64": ("avx512_vnni", "avx_vnni", "amx_int8"),
    "aarch64": ("asimddp", "i8mm"),
}
#: time outside the layers is worth a line from this share of a call on
_OUTSIDE_SHARE = 0.1
_COUNTERS = "the runtime's per-layer counters"
#: beginnings of reasons -> what takes them away
_REMEDIES = (
    ("input and weights are float", "quantize it, or keep it in float if accuracy needs that"),
    ("its inputs are not quantized", "put Q/DQ on both of its inputs"),
    ("its input is not quantized", "put a QuantizeLinear and DequantizeLinear before it"),
    ("its second input is not quantized", "put a QuantizeLinear and DequantizeLinear before it"),
    ("weights are float", "store its weights as int8 behind a DequantizeLinear"),
    ("weights are stored in fewer bits", "use 8-bit weights if speed matters more than size"),
    ("weights are int", "use 8-bit weights; fewer bits save space here, not time"),
    ("no QuantizeLinear on its output", "put Q/DQ behind it, after its activation"),
    ("its output is also used in float", "quantize its output for all of its users"),
    ("bias is float", "store the bias as int32 behind a DequantizeLinear, or try OpenVINO"),
    ("its weights carry no zero point", "write the zero points of its weights into the file"),
    ("merged with its neighbours", "set the option SNIPPETS_MODE: DISABLE in the target's file"),
    ("a ", "move the Q/DQ behind that layout change, right before the layer"),
    ("its ", "quantize it unsigned with zero point 0, so that the runtime absorbs it"),
)  # fmt: skip
_UNKNOWN_REMEDY = "run `edgekd doctor` to see what this target has kernels for"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that costs time in the second model.

    Attributes:
        title: What was seen.
        time_us: Time of the nodes it is about: a bound on what can be won, not a promise.
        what_to_change: For the user.
        read_from: Where the figures come from.
    """

    title: str
    time_us: float
    what_to_change: str
    read_from: str


def findings(model: Explained, where: Breakdown, pairs: tuple[Pair, ...]) -> tuple[Finding, ...]:
    """What costs time in `model`, the longest first.

    Args:
        model: The model in question.
        where: Its breakdown.
        pairs: Its layers beside those of the model it is compared with.
    """
    found = [
        *_floats(where),
        *_standing(model),
        *_elementwise(model, where),
        *_slower(pairs),
        *_instructions(model, where),
        *_outside(where),
    ]
    return tuple(sorted(found, key=lambda f: -f.time_us))


def _floats(where: Breakdown) -> Iterator[Finding]:
    for reason, part in where.floats.items():
        yield Finding(
            f"{_many(part.count, 'convolution or product', 'convolutions or products')} "
            f"in float: {part.time_us:.1f} us of {where.layers_us:.1f} us; {reason}",
            part.time_us,
            next((fix for start, fix in _REMEDIES if reason.startswith(start)), _UNKNOWN_REMEDY),
            f"{_COUNTERS}; the reason from the file's Q/DQ pattern",
        )


def _standing(model: Explained) -> Iterator[Finding]:
    moves = [layer for layer in model.layers if category(layer) == "reformat"]
    inside = [layer for layer in moves if layer.role == "requantize"]
    others = [layer for layer in moves if layer.role != "requantize"]
    if inside:
        part = spent(inside)
        yield Finding(
            f"{_many(part.count, 'Q/DQ node')} left standing inside the graph: "
            f"{part.time_us:.1f} us",
            part.time_us,
            "quantize the layers between them too, or leave the whole stretch in float",
            _COUNTERS,
        )
    if others:
        part = spent(others)
        ops = ", ".join(sorted({layer.op for layer in others}))
        yield Finding(
            f"{_many(part.count, 'node')} only for layout or precision ({ops}): "
            f"{part.time_us:.1f} us",
            part.time_us,
            "at the model's ends, feed and read integers; inside, keep float and int8 layers "
            "in long stretches",
            _COUNTERS,
        )


def _elementwise(model: Explained, where: Breakdown) -> Iterator[Finding]:
    """Only beside int8 layers: in a float model it is what was asked for."""
    floats = [
        layer
        for layer in model.layers
        if category(layer) == "elementwise" and layer.precision not in ("int8", "other")
    ]
    if floats and where.categories["matmul int8"].count:
        part = spent(floats)
        ops = ", ".join(sorted({layer.op for layer in floats}))
        yield Finding(
            f"{_many(part.count, 'elementwise node')} in float beside int8 layers ({ops}): "
            f"{part.time_us:.1f} us",
            part.time_us,
            "put Q/DQ around them, or pick an activation that the runtime absorbs, as ReLU",
            _COUNTERS,
        )


def _slower(pairs: tuple[Pair, ...]) -> Iterator[Finding]:
    slower = [
        (p, p.second_us - p.first_us)
        for p in pairs
        if p.first_us and p.second_us and p.second_us > p.first_us and _became_int8(p)
    ]
    if slower:
        lost_us = sum(more for _, more in slower)
        worst = max(slower, key=lambda s: s[1])[0].name
        yield Finding(
            f"{_many(len(slower), 'layer')} slower in int8 than in the first model, by "
            f"{lost_us:.1f} us; most in {worst}",
            lost_us,
            "leave these in float, or give them more channels: a small layer gains nothing",
            f"{_COUNTERS} of both models, joined by the file's names",
        )


def _became_int8(pair: Pair) -> bool:
    return pair.second.endswith("int8") and not pair.first.endswith("int8")


def _instructions(model: Explained, where: Breakdown) -> Iterator[Finding]:
    wanted = INT8_FLAGS.get(model.architecture)
    part = where.categories["matmul int8"]
    if wanted and model.cpu_flags and part.count and not set(wanted) & set(model.cpu_flags):
        yield Finding(
            f"the CPU has none of {', '.join(wanted)}: an int8 product takes several "
            f"instructions, so int8 gains little; {_many(part.count, 'int8 kernel')}: "
            f"{part.time_us:.1f} us",
            part.time_us,
            "measure on the CPU that will run it, or keep int8 for its size alone",
            "/proc/cpuinfo and the runtime's per-layer counters",
        )


def _outside(where: Breakdown) -> Iterator[Finding]:
    outside_us = where.latency_us - where.layers_us
    if not where.untimed and outside_us >= _OUTSIDE_SHARE * where.latency_us:
        word = "dominates" if outside_us > where.layers_us else "counts"
        yield Finding(
            f"the cost of a call {word}: its layers sum to {where.layers_us:.1f} us of "
            f"{where.latency_us:.1f} us measured",
            outside_us,
            "run several samples per call, or a runtime with a cheaper call; "
            "no change to the layers helps",
            "the median of the timed calls, and the runtime's per-layer counters",
        )


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"

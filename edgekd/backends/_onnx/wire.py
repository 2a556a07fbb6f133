"""Reads the outline of an ONNX file straight from its bytes.

Opening a file must not need the `onnx` package: it would add its own memory and a full copy of
the weights to the process whose memory is being measured. So this walks the protobuf encoding
itself (protobuf.dev/programming-guides/encoding), skips everything long, and finds out whether
the file is whole, how its inputs and outputs are called, and which other files it points at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

#: message -> field number -> message inside; every way from a model to a tensor (onnx.proto)
CHILDREN: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {
        1: "NodeProto",
        5: "TensorProto",
        11: "ValueInfoProto",
        12: "ValueInfoProto",
        15: "SparseTensorProto",
    },
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "StringStringEntryProto"},
    "ValueInfoProto": {},
    "StringStringEntryProto": {},
}
_GRAPH, _OPSET = 7, 8
_GRAPH_INPUT, _GRAPH_OUTPUT, _INITIALIZER = 11, 12, 5
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 100  # protobuf's own limit


class MalformedError(ValueError):
    """The bytes are no ONNX model; the text says why."""


class TruncatedError(MalformedError):
    """The bytes end before the model does."""


class Bytes(Protocol):
    """bytes or a memory map."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: slice) -> bytes: ...


@dataclass(frozen=True, slots=True)
class External:
    """A stretch of another file that holds a tensor's data; length None = up to its end."""

    location: str
    offset: int
    length: int | None


@dataclass(slots=True)
class Outline:
    """What `outline` found.

    Attributes:
        inputs: Names of the graph's inputs in order, without initializers.
        outputs: Names of its outputs in order.
        externals: Of every tensor anywhere in the model.
    """

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    externals: list[External] = field(default_factory=list)
    initializers: set[str] = field(default_factory=set)


def outline(data: Bytes) -> Outline:
    """Walk a serialized ModelProto.

    Raises:
        TruncatedError: The bytes end inside a field.
        MalformedError: Not protobuf, no graph, or no operator set.
    """
    found = Outline()
    seen: set[int] = set()
    for number, start, end in _fields(data, 0, len(data), whole_file=True):
        seen.add(number)
        inside = CHILDREN["ModelProto"].get(number)
        if inside is not None:
            _walk(data, start, end, inside, found, depth=1, main=number == _GRAPH)
    if _GRAPH not in seen:
        raise MalformedError("it holds no graph")
    if _OPSET not in seen:
        raise MalformedError("it names no operator set, as files older than ONNX 1.0 or cut ones")
    found.inputs = [name for name in found.inputs if name not in found.initializers]
    return found


def _walk(
    data: Bytes, start: int, end: int, kind: str, found: Outline, *, depth: int, main: bool = False
) -> None:
    if depth > _MAX_DEPTH:
        raise MalformedError(f"its graphs are nested more than {_MAX_DEPTH} deep")
    children = CHILDREN[kind]
    external: dict[str, str] = {}
    for number, begin, stop in _fields(data, start, end):
        inside = children.get(number)
        if inside is None:
            continue
        if inside == "StringStringEntryProto":
            key = _text(data, begin, stop, 1)
            if key in external:  # readers would disagree on which of the two counts
                raise MalformedError(f"a tensor's external data gives its {key} twice")
            external[key] = _text(data, begin, stop, 2)
        elif inside == "ValueInfoProto":
            if main:
                names = found.inputs if number == _GRAPH_INPUT else found.outputs
                names.append(_text(data, begin, stop, 1))
        else:
            if main and number == _INITIALIZER:
                found.initializers.add(_text(data, begin, stop, 8))
            _walk(data, begin, stop, inside, found, depth=depth + 1)
    if external:
        found.externals.append(_external(external))


def _external(entries: dict[str, str]) -> External:
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries["length"]) if "length" in entries else None
    except ValueError as e:
        raise MalformedError(f"a tensor's external data has no whole number: {entries}") from e
    if offset < 0 or (length is not None and length < 0):
        raise MalformedError(f"a tensor's external data has a negative place: {entries}")
    return External(entries.get("location", ""), offset, length)


def _text(data: Bytes, start: int, end: int, wanted: int) -> str:
    """The last field `wanted` of a message, as protobuf reads repeated ones."""
    value = b""
    for number, begin, stop in _fields(data, start, end):
        if number == wanted:
            value = data[begin:stop]
    try:
        return value.decode()
    except UnicodeDecodeError as e:
        raise MalformedError("a name in it is not UTF-8") from e


def _fields(
    data: Bytes, start: int, end: int, *, whole_file: bool = False
) -> Iterator[tuple[int, int, int]]:
    """(field number, first byte, end) of every field of a message; scalars have an empty range."""
    overrun = TruncatedError if whole_file else MalformedError
    at = start
    while at < end:
        tag, at = _varint(data, at, end, overrun)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise MalformedError("it is not a protobuf file")
        begin = at
        if wire == _VARINT:
            _, at = _varint(data, at, end, overrun)
        elif wire == _BYTES:
            size, begin = _varint(data, at, end, overrun)
            at = begin + size
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise MalformedError("it is not a protobuf file")
        if at > end:
            raise overrun(f"{at - end} bytes are missing at its end")
        yield number, begin, at if wire == _BYTES else begin


def _varint(data: Bytes, at: int, end: int, overrun: type[MalformedError]) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[at : min(at + 10, end)]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    if at + 10 > end:
        raise overrun("it ends inside a number")
    raise MalformedError("it is not a protobuf file")

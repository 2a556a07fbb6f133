"""Our own reader of the protobuf encoding, held against the onnx package."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgekd.backends._onnx.wire import CHILDREN, External, MalformedError, outline
from edgekd.testing.onnx_models import convolution_net

MODEL = convolution_net(quantized=True)
# the wire numbers of what the outline is made of; the rest is found by walking onnx.proto
LEAVES = {"StringStringEntryProto", "ValueInfoProto"}


def test_every_way_to_a_tensor_in_onnx_proto_is_walked() -> None:
    """A new kind of container in a newer onnx would be a way around the check."""
    ways: dict[str, dict[int, str]] = {}

    def leads_to_data(message, seen: tuple[str, ...] = ()) -> bool:
        if message.name == "TensorProto":
            return True
        return any(
            field.message_type is not None
            and field.message_type.name not in seen
            and leads_to_data(field.message_type, (*seen, message.name))
            for field in message.fields
        )

    def collect(message) -> None:
        if message.name in ways:
            return
        ways[message.name] = {}
        for field in message.fields:
            if field.message_type is not None and leads_to_data(field.message_type):
                ways[message.name][field.number] = field.message_type.name
                collect(field.message_type)

    collect(onnx.ModelProto.DESCRIPTOR)
    ours = {
        kind: {number: child for number, child in children.items() if child not in LEAVES}
        for kind, children in CHILDREN.items()
        if kind not in LEAVES
    }
    assert ours == ways


def test_field_numbers_of_names_and_external_data() -> None:
    numbers = {
        (message.DESCRIPTOR.name, field.name): field.number
        for message in (
            onnx.GraphProto,
            onnx.TensorProto,
            onnx.ValueInfoProto,
            onnx.StringStringEntryProto,
            onnx.ModelProto,
        )
        for field in message.DESCRIPTOR.fields
    }
    assert numbers["GraphProto", "input"] == 11
    assert numbers["GraphProto", "output"] == 12
    assert numbers["GraphProto", "initializer"] == 5
    assert numbers["TensorProto", "external_data"] == 13
    assert numbers["TensorProto", "name"] == 8
    assert numbers["ValueInfoProto", "name"] == 1
    assert numbers["StringStringEntryProto", "key"] == 1
    assert numbers["StringStringEntryProto", "value"] == 2
    assert numbers["ModelProto", "opset_import"] == 8


def test_names_of_inputs_and_outputs_leave_initializers_out() -> None:
    proto = onnx.load_from_string(MODEL)
    weight = proto.graph.initializer[0]
    proto.graph.input.append(
        helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
    )  # files older than IR 4 list initializers among the inputs
    found = outline(proto.SerializeToString())
    assert (found.inputs, found.outputs) == (["input"], ["logits"])


@pytest.mark.parametrize("length", range(0, len(MODEL), 7))
def test_a_file_cut_anywhere_is_never_taken_for_whole(length: int) -> None:
    with pytest.raises(MalformedError):
        outline(MODEL[:length])


def locations(message) -> set[str]:
    """What the onnx package sees: the locations of all tensors in a message."""
    found: set[str] = set()
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in value if isinstance(value, Iterable) else [value]:
            found |= locations(inner)
    if isinstance(message, TensorProto):
        found |= {e.value for e in message.external_data if e.key == "location"}
    return found


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        outline(data)
    except MalformedError as e:
        complaint = str(e)
    else:
        complaint = "none"
    assert complaint


@given(st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=3))
def test_no_damage_hides_a_location_from_us_that_onnx_sees(
    damage: list[tuple[int, int]],
) -> None:
    damaged = bytearray(in_initializer(external_tensor("x", offset="8")))
    for position, value in damage:
        damaged[position % len(damaged)] = value
    try:
        ours = {external.location for external in outline(bytes(damaged)).externals}
    except MalformedError:
        return
    try:
        theirs = locations(onnx.load_from_string(bytes(damaged)))
    except DecodeError:
        return
    assert theirs <= ours


def external_tensor(location: str = "a.bin", **entries: str) -> onnx.TensorProto:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[2], name="w")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def model_of(graph: onnx.GraphProto) -> bytes:
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)]
    ).SerializeToString()


def in_initializer(tensor: onnx.TensorProto) -> bytes:
    return model_of(helper.make_graph([], "g", [], [], [tensor]))


def in_constant(tensor: onnx.TensorProto) -> bytes:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    return model_of(helper.make_graph([node], "g", [], []))


def in_branch(tensor: onnx.TensorProto) -> bytes:
    branch = helper.make_graph([], "then", [], [], [tensor])
    node = helper.make_node("If", ["c"], ["o"], then_branch=branch, else_branch=branch)
    return model_of(helper.make_graph([node], "g", [], []))


def in_sparse(tensor: onnx.TensorProto) -> bytes:
    graph = helper.make_graph([], "g", [], [])
    graph.sparse_initializer.add().values.CopyFrom(tensor)
    return model_of(graph)


def in_function(tensor: onnx.TensorProto) -> bytes:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    function = helper.make_function("d", "f", [], ["c"], [node], [helper.make_opsetid("", 20)])
    graph = helper.make_graph([], "g", [], [])
    model = helper.make_model(
        graph, functions=[function], opset_imports=[helper.make_opsetid("", 20)]
    )
    return model.SerializeToString()


@pytest.mark.parametrize("hide", [in_initializer, in_constant, in_branch, in_sparse, in_function])
def test_external_data_is_found_wherever_a_tensor_can_be(hide) -> None:
    found = outline(hide(external_tensor("../x", offset="8", length="16")))
    assert set(found.externals) == {External("../x", 8, 16)}


def test_external_data_may_leave_its_stretch_out() -> None:
    assert outline(in_initializer(external_tensor())).externals == [External("a.bin", 0, None)]


@pytest.mark.parametrize(
    ("entries", "text"),
    [({"offset": "many"}, "no whole number"), ({"length": "-1"}, "a negative place")],
)
def test_external_data_with_nonsense_numbers_is_refused(
    entries: dict[str, str], text: str
) -> None:
    with pytest.raises(MalformedError, match=text):
        outline(in_initializer(external_tensor(**entries)))


def test_two_locations_for_one_tensor_are_refused() -> None:
    tensor = external_tensor("good.bin")
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(MalformedError, match="gives its location twice"):
        outline(in_initializer(tensor))


def test_graphs_nested_without_end_are_refused() -> None:
    graph = helper.make_graph([], "g", [], [])
    data = graph.SerializeToString()

    def field(number: int, inner: bytes) -> bytes:
        size, length = len(inner), b""
        while size > 127:
            length += bytes([size & 127 | 128])
            size >>= 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + inner

    for _ in range(60):  # graph -> node -> attribute -> graph: three levels each
        data = field(1, field(5, field(6, data)))
    with pytest.raises(MalformedError, match="nested more than 100 deep"):
        outline(field(7, data) + field(8, b""))


@pytest.mark.parametrize(
    ("drop", "text"), [("graph", "no graph"), ("opset_import", "no operator set")]
)
def test_a_model_without_its_essentials_is_refused(drop: str, text: str) -> None:
    proto = onnx.load_from_string(MODEL)
    proto.ClearField(drop)
    with pytest.raises(MalformedError, match=text):
        outline(proto.SerializeToString())

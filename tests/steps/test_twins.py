from __future__ import annotations

from typing import Any

from edgekd.core.target import Target, load_target
from edgekd.steps.twins import float_twins

INT8 = load_target("x86-onnxruntime-int8")


def changed(name: str, **changes: Any) -> Target:
    return INT8.model_copy(update={"name": name, **changes})


def test_a_twin_differs_in_precision_alone() -> None:
    twin = float_twins([INT8])[INT8.name]
    assert twin.name == "onnxruntime-float-1t-b1"
    assert (twin.precision, twin.scheme) == ("float32", None)
    assert (twin.backend, twin.conditions, twin.options) == (
        INT8.backend,
        INT8.conditions,
        INT8.options,
    )


def test_targets_of_one_runtime_share_a_twin() -> None:
    names = ["x86-onnxruntime-fp32", "x86-onnxruntime-int8", "x86-openvino-int8"]
    twins = float_twins([load_target(name) for name in names])
    assert twins[names[0]] == twins[names[1]]
    assert {t.name for t in twins.values()} == {
        "onnxruntime-float-1t-b1",
        "openvino-float-1t-b1",
    }


def test_other_options_conditions_or_opsets_make_another_twin() -> None:
    two_threads = INT8.conditions.model_copy(update={"threads": 2})
    saving = INT8.conditions.model_copy(update={"power_mode": "powersave"})
    twins = float_twins(
        [
            INT8,
            changed("threads", conditions=two_threads),
            changed("options", options={"session.disable_prepacking": "1"}),
            changed("same options", options={"session.disable_prepacking": "1"}),
            changed("power", conditions=saving),
            changed("opset", opset=18),
        ]
    )
    assert {name: twin.name for name, twin in twins.items()} == {
        INT8.name: "onnxruntime-float-1t-b1",
        "threads": "onnxruntime-float-2t-b1",
        "options": "onnxruntime-float-1t-b1#2",
        "same options": "onnxruntime-float-1t-b1#2",
        "power": "onnxruntime-float-1t-b1#3",
        "opset": "onnxruntime-float-1t-b1#4",
    }
    assert twins["options"].options == {"session.disable_prepacking": "1"}

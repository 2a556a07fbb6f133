"""What a broken parity advises; the ladder itself is in tests/export and tests/end_to_end."""

from __future__ import annotations

from typing import Any

import pytest

from edgekd.core.errors import ParityError
from edgekd.core.target import load_target
from edgekd.steps.prove import _with_advice

ERROR = ParityError("Parity breaks.", expected="a", got="b", todo="look at 'conv'")


class Machine:
    """Only what the advice reads of a device."""

    def __init__(self, architecture: str, *flags: str) -> None:
        self.facts = {"architecture": architecture, "cpu_flags": list(flags)}

    def environment(self) -> dict[str, Any]:
        return {"machine": self.facts}


@pytest.mark.parametrize(
    ("target", "machine", "advised"),
    [
        ("x86-onnxruntime-int8", Machine("x86_64", "avx2"), True),
        ("x86-onnxruntime-int8", Machine("x86_64", "avx2", "avx_vnni"), False),
        ("x86-openvino-int8", Machine("x86_64", "avx2"), False),  # has 7 bits there already
        ("x86-openvino-fp32", Machine("x86_64", "avx2"), False),
        ("x86-onnxruntime-int8", Machine("riscv64"), False),
    ],
)
def test_seven_bits_are_advised_where_int8_products_may_overflow(
    target: str, machine: Machine, advised: bool
) -> None:
    found = _with_advice(ERROR, load_target(target), machine)  # type: ignore[arg-type]
    assert ("quantize.weights.bits=7" in found.todo) == advised
    assert found.todo.startswith("look at 'conv'")
    assert (found.failed, found.expected, found.got) == (ERROR.failed, "a", "b")

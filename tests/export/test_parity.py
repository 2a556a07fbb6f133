from __future__ import annotations

import numpy as np
import pytest

from edgekd.core.errors import ParityError
from edgekd.core.target import Tolerance
from edgekd.export.parity import Form, climb, first_difference, reference_form
from edgekd.tasks._contract import TASKS

LABELS = np.arange(40) % 4
LOGITS = np.eye(4, dtype=np.float32)[LABELS] * 5
INPUTS = np.arange(40, dtype=np.float32).reshape(40, 1)
TOLERANCE = Tolerance(mean_abs=0.01, agreement=0.95)
TASK = TASKS.build("classification")


def form(name: str, change: float = 0.0, *, flips: int = 0, strict: bool = True) -> Form:
    def run(inputs: np.ndarray) -> np.ndarray:
        logits = LOGITS[: len(inputs)] + np.float32(change)
        logits[:flips] = np.roll(logits[:flips], 1, axis=1)
        return logits

    def taps(inputs: np.ndarray) -> dict[str, np.ndarray]:
        ramp = np.linspace(0, 1, 10, dtype=np.float32)
        return {"first": ramp, "second": ramp + np.float32(change), "third": ramp + change}

    return Form(name, run, taps, TOLERANCE if strict else None)


def test_every_rung_is_compared_with_the_anchor() -> None:
    rungs = climb(
        [
            form("float", 0.3, strict=False),
            form("fake-quant", 0.1, strict=False),
            form("file", 0.1),
            form("runtime", 0.101),
        ],
        INPUTS,
        LABELS,
        TASK,
        anchor="fake-quant",
    )
    assert [(r.name, r.against, r.ok) for r in rungs] == [
        ("float", None, None),
        ("fake-quant", "float", None),
        ("file", "fake-quant", True),
        ("runtime", "fake-quant", True),
    ]
    assert rungs[1].max_abs == pytest.approx(0.2, abs=1e-6)
    assert rungs[3].mean_abs == pytest.approx(0.001, abs=1e-5)
    assert [r.score for r in rungs] == [1.0] * 4


def test_it_stops_at_the_first_rung_out_of_tolerance_and_names_the_layer() -> None:
    reached = []

    def never(inputs: np.ndarray) -> np.ndarray:
        reached.append(len(inputs))
        return LOGITS

    with pytest.raises(ParityError) as caught:
        climb(
            [form("fake-quant", strict=False), form("file", 0.5), Form("runtime", never)],
            INPUTS,
            LABELS,
            TASK,
            anchor="fake-quant",
        )
    assert caught.value.exit_code == 5
    text = str(caught.value)
    assert "Parity breaks at the rung 'file'" in text
    assert "the first layer that differs is 'second'" in text
    assert "mean difference 0.5" in text
    assert not reached


def test_flipped_decisions_break_parity_even_if_the_logits_are_near() -> None:
    loose = Tolerance(mean_abs=100.0, agreement=0.95)
    flipped = form("file", flips=4)
    with pytest.raises(ParityError, match=r"90\.00% equal decisions on 40 samples"):
        climb(
            [form("torch", strict=False), Form("file", flipped.run, None, loose)],
            INPUTS,
            LABELS,
            TASK,
            anchor="torch",
        )


def test_one_flip_is_allowed_on_few_samples() -> None:
    loose = Tolerance(mean_abs=100.0, agreement=0.99)
    rungs = climb(
        [
            form("torch", strict=False),
            Form("file", form("x", flips=1).run, None, loose, samples=8),
        ],
        INPUTS,
        LABELS,
        TASK,
        anchor="torch",
    )
    assert (rungs[1].ok, rungs[1].n, rungs[1].agreement) == (True, 8, 0.875)


def test_what_is_not_finite_is_never_in_tolerance() -> None:
    with pytest.raises(ParityError, match="mean difference nan"):
        climb(
            [form("torch", strict=False), form("file", float("nan"))],
            INPUTS,
            LABELS,
            TASK,
            anchor="torch",
        )


def test_no_layer_is_blamed_when_none_differs() -> None:
    same = {"a": np.ones(3, np.float32)}
    assert first_difference(same, same, mean_abs=0.01) is None


def test_a_corrupted_file_is_caught_and_blamed_on_its_layer() -> None:
    import onnx
    import torch

    from edgekd.export.onnx_file import quantized_model
    from edgekd.quantize.convert import simulate, taps
    from tests.export.test_onnx_file import INT32
    from tests.quantize.nets import INPUT_SHAPE, trained_looking
    from tests.quantize.test_convert import aware, samples

    student = aware(trained_looking("residual")).freeze()
    fake = simulate(student)
    proto = onnx.load_from_string(quantized_model(student, INT32, INPUT_SHAPE, batch_size=1))
    (codes,) = [i for i in proto.graph.initializer if i.name == "conv2.codes"]
    damaged = np.roll(onnx.numpy_helper.to_array(codes), 1, axis=0)
    codes.CopyFrom(onnx.numpy_helper.from_array(damaged, codes.name))

    def torch_run(inputs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            out: np.ndarray = fake(torch.from_numpy(inputs)).numpy()
        return out

    anchor = Form("torch fake-quant", torch_run, lambda x: taps(fake, torch.from_numpy(x)))
    file = reference_form(proto.SerializeToString(), samples=8, tolerance=TOLERANCE)
    with pytest.raises(ParityError, match="the first layer that differs is 'conv2'"):
        climb([anchor, file], samples(8), LABELS[:8], TASK, anchor="torch fake-quant")

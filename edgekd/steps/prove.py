"""The proof of each artifact: the parity ladder, and the kernels it really runs in."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekd.backends._contract import BACKENDS
from edgekd.backends._kernels import count_kernels
from edgekd.core.hashing import sha256_file
from edgekd.core.types import KernelCount, LayerRecord
from edgekd.export.onnx_file import INPUT
from edgekd.export.parity import Form, RungResult, climb, reference_form, runtime_form
from edgekd.profile.together import connected
from edgekd.profile.transports._contract import Load
from edgekd.quantize.convert import simulate, taps
from edgekd.steps.learn import load_student
from edgekd.steps.shrink import load_quantized

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from edgekd.backends._contract import Feeds
    from edgekd.core.target import Target
    from edgekd.export.parity import Floats
    from edgekd.profile.transports._contract import Device
    from edgekd.steps.job import Job
    from edgekd.steps.ship import Shipment, Shipped

_BATCH = 512


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found about one artifact.

    Attributes:
        rungs: The parity ladder; its last rung is the runtime on the device, under the target's
            conditions.
        kernels: Counted.
        layers: Every node as it runs.
        skipped: Layers left in float by choice -> reason.
        runtime_version: Of the backend.
    """

    rungs: tuple[RungResult, ...]
    kernels: KernelCount
    layers: tuple[LayerRecord, ...]
    skipped: dict[str, str]
    runtime_version: str


def proofs(job: Job, shipment: Shipment) -> dict[str, Proof]:
    """Climb the ladder and count kernels for every artifact, by target.

    Raises:
        ParityError: At the first rung out of tolerance.
    """
    return {s.target.name: _proof(job, s) for s in shipment.artifacts}


def test_inputs(job: Job) -> tuple[Floats, NDArray[np.int64]]:
    """The real samples that artifacts are compared and scored on."""
    count = min(job.recipe.parity.runtime_samples or len(job.data.test), len(job.data.test))
    indices = np.arange(count)
    return job.data.test.batch(indices), job.data.test.labels[:count]


def _proof(job: Job, shipped: Shipped) -> Proof:
    target = shipped.target

    def work(folder: Path) -> tuple[dict[str, Any], list[str]]:
        inputs, labels = test_inputs(job)
        with connected([target]) as (device,):
            forms, anchor, skipped = _forms(job, shipped, device)
            rungs = climb(forms, inputs, labels, job.task, anchor=anchor)
            first = [{INPUT: inputs[: target.conditions.batch_size]}]
            layers = device.layers(_load(shipped.artifact.path, target, first))
        return {
            "rungs": [asdict(r) for r in rungs],
            "layers": [asdict(x) for x in layers],
            "skipped": skipped,
        }, []

    version = job.runtimes[target.name]
    needs = job.needs(
        artifact=shipped.artifact.sha256,
        target=target.model_dump(mode="json"),
        parity=job.recipe.parity.model_dump(mode="json"),
        runtime=version,
        machine=job.place(target).machine,
    )
    result = job.run.stage(f"proof/{target.name}", needs, work).result
    layers = tuple(LayerRecord(**x) for x in result["layers"])
    rungs = tuple(RungResult(**r) for r in result["rungs"])
    return Proof(rungs, count_kernels(layers), layers, result["skipped"], version)


def _load(path: Path, target: Target, feeds: Sequence[Feeds]) -> Load:
    return Load(target.name, path, sha256_file(path), target, feeds)


def _forms(job: Job, shipped: Shipped, device: Device) -> tuple[list[Form], str, dict[str, str]]:
    """The rungs below a runtime, the one a file must reproduce, and what stayed in float."""
    target, path = shipped.target, shipped.artifact.path
    model = shipped.source.read_bytes()
    above = [
        reference_form(
            model, samples=job.recipe.parity.reference_samples, tolerance=target.tolerance
        ),
        runtime_form(
            BACKENDS.get(target.backend)(),
            path,
            model,
            target,
            run=lambda file, feeds: device.run(_load(file, target, feeds)),
        ),
    ]
    assert shipped.student is not None
    if target.scheme is None:
        module = load_student(job, shipped.student)
        return [Form("torch float", _in_torch(module)), *above], "torch float", {}
    frozen = load_quantized(job, shipped.student)
    fake = simulate(frozen)
    forms = [
        Form("torch float", _in_torch(frozen.graph)),
        Form(
            "torch fake-quant",
            _in_torch(fake),
            lambda inputs: taps(fake, torch.from_numpy(inputs)),
        ),
        *above,
    ]
    return forms, "torch fake-quant", dict(frozen.skipped)


def _in_torch(module: nn.Module) -> Callable[[Floats], Floats]:
    def run(inputs: Floats) -> Floats:
        with torch.no_grad():
            parts = [
                module(torch.from_numpy(inputs[i : i + _BATCH])).numpy()
                for i in range(0, len(inputs), _BATCH)
            ]
        return np.concatenate(parts)

    return run

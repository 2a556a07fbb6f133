"""What every layer at every width takes on the target, timed there before anything is trained.

How fast a layer runs does not depend on what its weights are, so a student that nobody has trained
will do.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.backends._contract import BACKENDS
from edgekd.core.files import atomic_write
from edgekd.core.hashing import sha256_file
from edgekd.export.onnx_file import INPUT, quantized_model
from edgekd.profile.percentiles import percentiles
from edgekd.profile.together import connected, measure_on
from edgekd.profile.transports._contract import Load
from edgekd.quantize.convert import QuantizationAware
from edgekd.quantize.fold import fold_batch_norms, trace
from edgekd.quantize.mixed import rule
from edgekd.quantize.offers import offers
from edgekd.steps.learn import build_student

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgekd.core.target import Target
    from edgekd.core.types import Profile, Scheme
    from edgekd.profile.transports._contract import Device
    from edgekd.quantize.mixed import Allocation
    from edgekd.quantize.offers import Offer
    from edgekd.quantize.rules import Rule
    from edgekd.steps.job import Job

_DONE = "timed.json"
_SAMPLES, _FEEDS = 32, 8
_NS_PER_US = 1e3
_FLOAT = "float"


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """What the layers of a student take on the targets of one scheme.

    Attributes:
        widest_bits: Of the integers offered.
        whole_us: Median of the whole student with these in every free layer; on the slowest
            target.
        repeat_us: How far that median went apart when the same file was timed again.
        slower_us: Layer -> bits (None for float) -> what a student with this layer changed takes
            more, as measured, on the target where that is most.
        slower_ns: The same as it counts: 0 where the runtime ran the same kernels.
        same_kernels: Layer -> the widths that ran in the kernels of the widest on every target.
            Float is none of the widths where this is so: the runtime has rounded it by itself.
    """

    widest_bits: int
    whole_us: float
    repeat_us: float
    slower_us: Mapping[str, Mapping[int | None, float]]
    slower_ns: Mapping[str, Mapping[int | None, int]]
    same_kernels: Mapping[str, frozenset[int | None]]


def layer_times(job: Job, scheme: Scheme) -> LayerTimes:
    """Measured on every target of the scheme's students; a stage for each."""
    found = [_timed(job, target) for target in _targets(job, scheme)]
    slower_us: dict[str, dict[int | None, float]] = {}
    slower_ns: dict[str, dict[int | None, int]] = {}
    same: dict[str, frozenset[int | None]] = {}
    for layer, widths in found[0]["layers"].items():
        seen = {w: [f["layers"][layer][w] for f in found] for w in widths}
        named = {
            None if w == _FLOAT else int(w): of
            for w, of in seen.items()
            if w != _FLOAT or not any(x["same_kernels"] for x in of)
        }
        slower_us[layer] = {b: max(x["slower_us"] for x in of) for b, of in named.items()}
        slower_ns[layer] = {b: max(_counted_ns(x) for x in of) for b, of in named.items()}
        same[layer] = frozenset(b for b, of in named.items() if all(x["same_kernels"] for x in of))
    return LayerTimes(
        widest_bits=found[0]["widest_bits"],
        whole_us=max(f["whole_us"] for f in found),
        repeat_us=max(f["repeat_us"] for f in found),
        slower_us=slower_us,
        slower_ns=slower_ns,
        same_kernels=same,
    )


def _counted_ns(seen: dict[str, Any]) -> int:
    """A difference between the same kernels is noise."""
    return 0 if seen["same_kernels"] else round(seen["slower_us"] * _NS_PER_US)


def whole_ms(job: Job, scheme: Scheme, found: Allocation) -> dict[str, float]:
    """Target -> certified median of a student with these bits."""
    rules = found.rules(job.recipe.quantize.within(scheme.weight_bits).weights)
    return {target.name: _whole_ms(job, target, rules) for target in _targets(job, scheme)}


def _whole_ms(job: Job, target: Target, rules: Sequence[Rule]) -> float:
    def work(folder: Path) -> tuple[dict[str, Any], list[str]]:
        path = _built(job, target, rules, folder, "whole")
        with connected([target]) as (device,):
            (profile,) = _measured(job, device, [_load(job, target, path)])
        certified = percentiles(profile).p50.certified
        assert certified is not None  # every rule takes enough samples for a median
        return {"p50_ms": certified, "samples": len(profile.samples_ns)}, []

    needs = {**_needs(job, target), "chosen": [r.model_dump(mode="json") for r in rules]}
    return float(job.run.stage(f"mixed_time/{target.name}", needs, work).result["p50_ms"])


def offered_layers(job: Job, scheme: Scheme) -> tuple[Offer, ...]:
    """What each layer of the student can be stored as."""
    graph = fold_batch_norms(trace(build_student(job, job.recipe.seed)))
    return offers(graph, job.recipe.quantize.within(scheme.weight_bits), scheme)


def _targets(job: Job, scheme: Scheme) -> list[Target]:
    return [t for t in job.targets if t.scheme and t.scheme.training_key == scheme.training_key]


def _needs(job: Job, target: Target) -> dict[str, Any]:
    section = job.recipe.quantize
    include = {"weights", "keep_float", "rules", "granularity", "activation_bits"}
    return job.needs(
        student=job.recipe.as_written()["student"],
        quantize=section.model_dump(mode="json", include=include),
        target=target.model_dump(mode="json"),
        runtime=job.runtimes[target.name],
        place=asdict(job.place(target)),
        rule=job.recipe.profile.model_dump(mode="json"),
        seed=job.recipe.seed,
    )


def _timed(job: Job, target: Target) -> dict[str, Any]:
    """Every free layer at every width on one target."""
    scheme = target.scheme
    assert scheme is not None  # of an integer target
    section = job.recipe.quantize.within(scheme.weight_bits)
    assert section.mixed is not None  # the caller looked
    most = max(section.mixed.bits)
    widths: tuple[int | None, ...] = (*section.mixed.bits, None)

    def work(folder: Path) -> tuple[dict[str, Any], list[str]]:
        free = [o.layer for o in offered_layers(job, scheme) if not o.rule]
        widest = [rule(layer, section.weights, most) for layer in free]
        path = folder / _DONE
        done: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        whole = _built(job, target, widest, folder, "widest")
        with job.progress.bar(f"layers on {target.name}", len(free), len(done)) as bar:
            for layer in free:
                if layer in done:
                    continue
                files = dict.fromkeys(widths, whole)
                for bits in widths:
                    if bits != most:
                        changed = [*widest, rule(layer, section.weights, bits)]
                        files[bits] = _built(job, target, changed, folder, f"{bits or _FLOAT}")
                done[layer] = _compared(job, target, whole, files)
                atomic_write(path, json.dumps(done))
                bar.advance(1, layer)
        wholes = [of["whole_us"] for of in done.values()]
        return {
            "whole_us": median(wholes),
            "repeat_us": max(wholes) - min(wholes),
            "widest_bits": most,
            "layers": {layer: done[layer]["widths"] for layer in free},
        }, []

    needs = {**_needs(job, target), "bits": list(section.mixed.bits)}
    return job.run.stage(f"layer_times/{target.name}", needs, work).result


def _compared(
    job: Job, target: Target, whole: Path, files: Mapping[int | None, Path]
) -> dict[str, Any]:
    """One layer's widths, timed in turns with the student that has the widest everywhere."""
    distinct = list(dict.fromkeys([whole, *files.values()]))
    with connected([target]) as (device,):
        loads = [_load(job, target, path) for path in distinct]
        profiles = dict(zip(distinct, _measured(job, device, loads), strict=True))
        kernels = {path: _kernels(device, x) for path, x in zip(distinct, loads, strict=True)}
    base_us = _median_us(profiles[whole])
    return {
        "whole_us": base_us,
        "widths": {
            _FLOAT if bits is None else str(bits): {
                "slower_us": _median_us(profiles[path]) - base_us,
                "same_kernels": kernels[path] == kernels[whole],
            }
            for bits, path in files.items()
        },
    }


def _built(job: Job, target: Target, rules: Sequence[Rule], folder: Path, name: str) -> Path:
    """An untrained student under these rules and the recipe's own, as the target loads it."""
    scheme = target.scheme
    assert scheme is not None  # of an integer target
    section = job.recipe.quantize.within(scheme.weight_bits)
    changed = section.model_copy(
        update={
            "rules": (*rules, *section.rules),
            "mixed": None,
            "restore_statistics": False,
            "ranges": "minmax",
        }
    )
    samples = job.data.train.batch(np.arange(min(_SAMPLES, len(job.data.train))))
    seed = job.recipe.seed
    student = build_student(job, seed).eval()
    aware = QuantizationAware(student, changed, scheme, samples, learned=False, seed=seed)
    model = quantized_model(
        aware.freeze(), scheme, job.spec.input_shape, batch_size=target.conditions.batch_size
    )
    return BACKENDS.get(target.backend)().build(model, target, folder / name)


def _load(job: Job, target: Target, path: Path) -> Load:
    size = target.conditions.batch_size
    rows = np.arange(_FEEDS * size) % len(job.data.test)
    inputs = job.data.test.batch(rows)
    feeds = [{INPUT: inputs[i : i + size]} for i in range(0, len(inputs), size)]
    return Load(path.name, path, sha256_file(path), target, feeds)


def _measured(job: Job, device: Device, loads: Sequence[Load]) -> list[Profile]:
    return measure_on(
        [device] * len(loads),
        loads,
        job.recipe.profile,
        inputs="real test samples",
        progress=job.progress,
    )


def _kernels(device: Device, load: Load) -> Counter[tuple[str, str]]:
    return Counter((x.op, x.precision) for x in device.layers(load))


def _median_us(profile: Profile) -> float:
    return median(profile.samples_ns) / _NS_PER_US

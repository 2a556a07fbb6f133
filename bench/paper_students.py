"""Quantized distillation, differentiable quantization and edgekd at 2, 4 and 8 bits, equal bytes.

    python bench/cifar10.py --data ../shared/data     # first: teacher and float students
    python bench/paper_students.py                    # every missing part, hours on one core
    python bench/paper_students.py --parts student3-seed0-best-2bit
    python bench/paper_tables.py                      # the tables of the parts there are

The students are those of Polino et al. (2018, arXiv:1802.05668), the rows those of its table 1:
post-training uniform quantization in buckets of 256, quantized distillation (QD: the same grid,
gradients passed straight through), differentiable quantization (DQ: weights fixed, points trained,
taught by the float student itself), all layers alike; then edgekd's own. No row of edgekd takes
more bytes than the paper's format at the same bits. Weights only, activations in float, as in the
paper; beside them ResNet-20 with weights and activations on learned grids.

A part is one JSON and one safetensors file in runs/cifar10/, and is made once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cifar10
import torch
from cifar10 import AUGMENT, ROOT, SPEC, STUDENTS, TASK, Parts
from low_bits import Granularity, LowBit, estimate_batch_norms, some
from torch import nn

from edgekd.core.progress import Silent
from edgekd.core.types import PerBlock, PerChannel, Scheme
from edgekd.distill.cache import TeacherOutputs
from edgekd.distill.evaluation import evaluate
from edgekd.distill.feed import resident_data
from edgekd.distill.objectives.hard_label import HardLabel
from edgekd.distill.objectives.logits_kl import LogitsKL
from edgekd.distill.settings import TrainSettings
from edgekd.distill.teacher import Teacher
from edgekd.distill.trainer import train
from edgekd.distill.weights import load_weights
from edgekd.quantize.fold import fold_batch_norms, trace
from edgekd.quantize.mixed import allocate
from edgekd.quantize.offers import budget_bytes, loss_increases, offers, with_bits
from edgekd.quantize.placement import WEIGHTED
from edgekd.quantize.quantizers._contract import QUANTIZERS
from edgekd.quantize.settings import QuantizeSettings
from edgekd.students._build import build_seeded
from edgekd.tasks._contract import Data

Grid = tuple[Any, Granularity]
BUCKET, PER_CHANNEL = PerBlock(size=256), PerChannel(axis=0)
SOFT = (LogitsKL(weight=0.9, temperature=2.0), HardLabel(weight=0.1))
RE_ESTIMATE_BATCHES = 100
#: train samples on which the loss of every layer at every width is measured
MEASURED = 2048
CALIBRATION = 512
#: at two bits a grid without a zero has all four levels, one around zero only three
LEVELS = {2: "mid_rise", 4: "narrow", 8: "narrow"}
#: of any target: only the weights' side is read
SCHEME = Scheme(activations="uint8", bias="int32")
METHODS = {
    "post": "post-training, buckets of 256",
    "qd": "QD as in the paper",
    "dq": "DQ as in the paper",
    "best": "edgekd",
    "int8": "edgekd, activations in 8 bits too",
    "longer": "float, trained on as long as edgekd at 2 bits",
}
#: 32 is float
BITS = (2, 32, 4, 8)
EPOCHS = {2: 4, 4: 2, 8: 1}
#: passes over the data in which only points are trained
DQ_EPOCHS = {2: 2, 4: 1}
#: at 2 bits the points of some seeds diverge at the first; the better on validation is kept
DQ_RATES = (0.02, 0.002)
RESNET_EPOCHS = {4: 1, 2: 10}


@dataclass(frozen=True)
class Arm:
    """One row of the table at one width.

    Attributes:
        weights: Quantizer and granularity of every layer but `others`; None for float.
        others: Layer path -> its own.
        train: Empty for post-training; of several, the best on validation is kept.
        objectives: Of that training.
        own_teacher: Taught by the float student itself instead of ResNet-20.
        fixed_weights: Only what quantizers learn is trained.
        re_estimate: Batch-norm statistics, after training.
        activation_bits: Of the input of every layer but `outer`; None for float.
        outer: Layers whose input has 8 bits.
    """

    weights: Grid | None
    others: dict[str, Grid] = field(default_factory=dict)
    train: Sequence[TrainSettings] = ()
    objectives: Sequence[Any] = ()
    own_teacher: bool = False
    fixed_weights: bool = False
    re_estimate: bool = False
    activation_bits: int | None = None
    outer: Sequence[str] = ()


def grid(name: str, granularity: Granularity = PER_CHANNEL, **fields: Any) -> Grid:
    return QUANTIZERS.build({"name": name, **fields}), granularity


def distilling(epochs: int, learning_rate: float, **fields: Any) -> TrainSettings:
    return TrainSettings(
        epochs=epochs,
        learning_rate=learning_rate,
        weight_decay=fields.pop("weight_decay", 1e-4),
        warmup_epochs=0.2,
        augment=AUGMENT,
        precision="float32",
        **fields,
    )


def paper_arm(method: str, bits: int) -> Arm:
    if method == "longer":
        return Arm(None, train=[distilling(EPOCHS[2], 0.02)], objectives=SOFT)
    if method == "post":
        return Arm(grid("bucketed", BUCKET, bits=bits))
    if method == "qd":
        train = distilling(EPOCHS[bits], 0.02)
        return Arm(grid("bucketed", BUCKET, bits=bits), train=[train], objectives=SOFT)
    return Arm(
        grid("differentiable", BUCKET, bits=bits),
        train=[distilling(DQ_EPOCHS[bits], rate, weight_decay=0.0) for rate in DQ_RATES],
        objectives=SOFT,
        own_teacher=True,
        fixed_weights=True,
    )


def best_arm(net: nn.Module, bits: int, data: Data, *, activation_bits: int | None) -> Arm:
    """Learned steps per channel, bits by measured loss within the bytes of the paper's format."""
    settings = QuantizeSettings.model_validate(
        {
            "weights": {"name": "lsq", "bits": bits, "levels": LEVELS[bits]},
            "granularity": PER_CHANNEL,
            "activation_bits": "float",
            "mixed": {"bits": (2, 4, 8), "budget": paper_bytes(net, bits)},
        }
    )
    graph = fold_batch_norms(trace(net))
    offered = offers(graph, settings, SCHEME)
    samples = some(data.train, MEASURED)
    losses = loss_increases(
        graph, offered, settings, SCHEME, lambda module: evaluate(module, samples, TASK).loss
    )
    found = allocate(offered, dict(losses), budget_bytes(offered, settings))
    return Arm(
        (settings.weights, PER_CHANNEL),
        others={x.layer: (with_bits(settings.weights, x.bits), PER_CHANNEL) for x in found.layers},
        train=[distilling(EPOCHS[bits], 0.02)],
        objectives=SOFT,
        re_estimate=True,
        activation_bits=activation_bits,
    )


def paper_bytes(net: nn.Module, bits: int) -> int:
    """Of all weights in the paper's format: codes, and two floats for every 256 of each layer."""
    counts = [layer.weight.numel() for layer in net.modules() if isinstance(layer, WEIGHTED)]
    return sum(-(-n * bits // 8) + 8 * -(-n // BUCKET.size) for n in counts)


def resnet_arm(bits: int) -> Arm:
    """First and last layer at 8 bits, as APoT has them (Li et al., 2020, arXiv:1909.13144)."""
    outer = ("conv1", "linear")
    return Arm(
        grid("lsq", bits=bits, levels=LEVELS[bits]),
        others={path: grid("lsq", bits=8) for path in outer},
        train=[distilling(RESNET_EPOCHS[bits], 0.02)],
        objectives=SOFT,
        re_estimate=True,
        activation_bits=bits,
        outer=outer,
    )


def part_names() -> list[str]:
    """Every part, the ones that matter most first."""

    def of(student: str) -> list[str]:
        wanted = [(m, b) for b in BITS for m in METHODS if has(m, b)]
        return [f"{student}-{method}-{bits}bit" for method, bits in wanted]

    return [
        *of("student3-seed0"),
        *(f"resnet20-w{bits}a{bits}" for bits in RESNET_EPOCHS),
        *of("student3-seed1"),
        *of("student3-seed2"),
        *of("student2-seed0"),
    ]


def has(method: str, bits: int) -> bool:
    """The paper has no DQ at 8 bits; what longer training gives in float is asked once."""
    return bits in {"dq": (2, 4), "int8": (8,), "longer": (32,)}.get(method, (2, 4, 8))


def float_student(parts: Parts, name: str) -> nn.Module:
    if name == "teacher":
        net: nn.Module = cifar10.ResNet20()
    else:
        net = build_seeded(STUDENTS[name.partition("-")[0]], SPEC, 0)
    net.load_state_dict(load_weights(parts.weights(name)))
    return net.eval()


def make(name: str, parts: Parts, data: Data, smoke: bool) -> None:
    """One part, from the float student it starts at to its files."""
    if name.startswith("resnet20"):
        source, arm, seed = "teacher", resnet_arm(int(name[-1])), 0
        net = float_student(parts, source)
    else:
        source, method, width = name.rsplit("-", 2)
        bits, seed = int(width.removesuffix("bit")), int(source[-1])
        net = float_student(parts, source)
        if method in ("best", "int8"):
            arm = best_arm(net, bits, data, activation_bits=8 if method == "int8" else None)
        else:
            arm = paper_arm(method, bits)
    taught_by = source if arm.own_teacher else "teacher"

    def on_grids() -> LowBit:
        return LowBit(
            net,
            lambda path: arm.others.get(path, arm.weights),
            calibration=some(data.train, CALIBRATION),
            activation_bits=_activation_bits(arm) if arm.activation_bits else None,
            fixed_weights=arm.fixed_weights,
        )

    def trained(settings: TrainSettings, title: str) -> tuple[LowBit, dict[str, Any]]:
        low = on_grids()
        result = train(
            low.module,
            data,
            TASK,
            settings=settings,
            objectives=arm.objectives,
            teacher=outputs(parts, data, taught_by, settings.epochs),
            seed=seed,
            folder=parts.folder / "checkpoints" / title,
            progress=Silent(),
            title=title,
            on_epoch_end=cifar10.say(title),
        )
        return low, {"train_s": result.train_s, "train": settings.model_dump(mode="json")}

    if not arm.train:
        low, facts = on_grids(), {}
    else:
        shorter = {"epochs": 1, "batch_size": 36} if smoke else {}
        tried = []
        for number, settings in enumerate(arm.train):
            title = f"{name}-{settings.learning_rate:g}" if number else name
            tried.append(trained(settings.model_copy(update=shorter), title))
        score = [evaluate(low.module.eval(), data.validation, TASK).score for low, _ in tried]
        low, facts = tried[score.index(max(score))]
        facts |= {
            "train_s": sum(each["train_s"] for _, each in tried),
            "validation_of_tries": score,
            "objectives": [{type(o).__name__: o.model_dump(mode="json")} for o in arm.objectives],
            "taught_by": taught_by,
        }
    if arm.re_estimate:
        estimate_batch_norms(low.module, data.train, batches=RE_ESTIMATE_BATCHES, seed=seed)
    low.module.eval()
    facts |= {"stored_bytes": low.stored_bytes(), "bits": low.bits()}
    found = {"source": source, "seed": seed, **cifar10.scores(low.module, data), **facts}
    parts.finish(name, low.module, found)


def _activation_bits(arm: Arm) -> Any:
    return lambda path: 8 if path in arm.outer else arm.activation_bits


def outputs(parts: Parts, data: Data, name: str, epochs: int) -> TeacherOutputs:
    """What ResNet-20 or a float student says about the train views, stored."""
    folder = "teacher-outputs" if name == "teacher" else f"{name}-outputs"
    return TeacherOutputs.open(
        parts.folder / folder,
        Teacher.from_module(float_student(parts, name), name),
        data,
        augment=AUGMENT,
        epochs=epochs,
        progress=Silent(),
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "cifar10")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", nargs="*", default=part_names())
    parser.add_argument("--smoke", action="store_true", help="one epoch each")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    parts = Parts(args.runs)
    data = resident_data(cifar10.load_data(args.runs))
    for name in args.parts:
        source = "teacher" if name.startswith("resnet20") else name.rsplit("-", 2)[0]
        if parts.result(name) is None and parts.result(source) is not None:
            make(name, parts, data, args.smoke)
            found = parts.result(name)
            print(f"{name}: test {found['test']:.4f}, {found['stored_bytes']} bytes", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

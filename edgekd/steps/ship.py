"""The files: one artifact per target, and the float models they are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.backends._contract import BACKENDS
from edgekd.backends._onnx.file import check, total_bytes
from edgekd.core.errors import DataError, UnsupportedError
from edgekd.core.files import atomic_write
from edgekd.core.types import Artifact, TensorSpec
from edgekd.export.onnx_file import INPUT, OUTPUT, float_model, quantized_model
from edgekd.steps.choose import Trained
from edgekd.steps.learn import FloatArms, load_student
from edgekd.steps.shrink import IntegerArms, load_quantized
from edgekd.steps.twins import float_twins

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgekd.core.stages import Stage
    from edgekd.core.target import Target
    from edgekd.steps.job import Job
    from edgekd.steps.teach import ScoredTeacher

#: what protobuf can hold
_MAX_ONE_FILE_BYTES = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Shipped:
    """One file and where it came from.

    Attributes:
        role: artifact, teacher or student_float.
        target: Under which it runs; for float models a float twin of the artifact's target.
        artifact: The file.
        source: The ONNX file it was built from; the artifact itself where the runtime reads ONNX.
        student: The student inside; None for the teacher.
    """

    role: str
    target: Target
    artifact: Artifact
    source: Path
    student: Trained | None

    @property
    def name(self) -> str:
        """Unique in a run."""
        return self.target.name if self.role == "artifact" else f"{self.role}@{self.target.name}"


@dataclass(frozen=True, slots=True)
class Shipment:
    """Everything that will be proven and measured.

    Attributes:
        artifacts: One per target, in the recipe's order.
        baselines: The float teacher and student under the same runtimes and conditions.
        twins: Target's name -> the float target that its baselines stand under.
        warnings: What could not be exported for comparison, and why.
    """

    artifacts: tuple[Shipped, ...]
    baselines: tuple[Shipped, ...]
    twins: dict[str, Target]
    warnings: tuple[str, ...]

    def baseline(self, shipped: Shipped, role: str) -> Shipped | None:
        """The float model to compare an artifact with: same runtime, same conditions."""
        twin = self.twins[shipped.target.name]
        return next((b for b in self.baselines if b.role == role and b.target == twin), None)


def artifacts(
    job: Job, arms: FloatArms, integers: dict[str, IntegerArms], taught: ScoredTeacher
) -> Shipment:
    """Export the chosen student for every target, and the float models beside it."""
    made = tuple(_artifact(job, t, chosen(t, arms, integers)) for t in job.targets)
    baselines, warnings = [], []
    twins = float_twins(job.targets)
    for twin in {t.name: t for t in twins.values()}.values():
        baselines.append(_float_student(job, twin, arms.kept.best, role="student_float"))
        try:
            baselines.append(_teacher(job, twin, taught))
        except UnsupportedError as e:
            warnings.append(
                f"The teacher is not measured under {twin.name}, so no speed-up is claimed "
                f"there: {' '.join(e.message.split())}"
            )
    return Shipment(made, tuple(baselines), twins, tuple(warnings))


def chosen(target: Target, arms: FloatArms, integers: dict[str, IntegerArms]) -> Trained:
    """The student that is deployed on a target."""
    if target.scheme is None:
        return arms.kept.best
    return integers[target.scheme.training_key].kept.best


def _artifact(job: Job, target: Target, student: Trained) -> Shipped:
    if target.scheme is None:
        return _float_student(job, target, student, role="artifact")
    scheme = target.scheme

    def model() -> bytes:
        frozen = load_quantized(job, student)
        return quantized_model(
            frozen, scheme, job.spec.input_shape, batch_size=target.conditions.batch_size
        )

    needs = {"student": student.sha256, "scheme": scheme.model_dump(mode="json")}
    return _ship(job, "artifact", target, student, needs, model)


def _float_student(job: Job, target: Target, student: Trained, *, role: str) -> Shipped:
    def model() -> bytes:
        return float_model(
            load_student(job, student),
            job.spec.input_shape,
            batch_size=target.conditions.batch_size,
            opset=target.opset,
        )

    return _ship(job, role, target, student, {"student": student.sha256}, model)


def _teacher(job: Job, target: Target, taught: ScoredTeacher) -> Shipped:
    def model() -> bytes:
        if taught.teacher.onnx_path is not None:
            return _own_file(job, target, taught.teacher.onnx_path)
        assert taught.teacher.module is not None  # a teacher is one or the other
        return float_model(
            taught.teacher.module,
            job.spec.input_shape,
            batch_size=target.conditions.batch_size,
            opset=target.opset,
        )

    return _ship(job, "teacher", target, None, {"teacher": taught.teacher.sha256}, model)


def _own_file(job: Job, target: Target, path: Path) -> bytes:
    """A teacher's ONNX file in one piece, if it can be timed as the artifact is.

    Raises:
        UnsupportedError: It takes other types or another batch, or is too large for one file.
    """
    size = target.conditions.batch_size
    samples = job.data.test.batch(np.arange(size) % len(job.data.test))
    threads = target.conditions.threads
    try:
        with BACKENDS.get(target.backend)().open(path, target, threads=threads) as session:
            session.run({session.inputs[0].name: samples})
    except DataError as e:
        raise UnsupportedError(
            f"{path.name} does not take the inputs that the student is timed on.",
            expected=f"{size} x float32 samples",
            got=" ".join(e.message.split()),
        ) from e
    if total_bytes(path) > _MAX_ONE_FILE_BYTES:
        raise UnsupportedError(
            f"{path.name} and its data files are too large for one ONNX file.",
            expected=f"at most {_MAX_ONE_FILE_BYTES} bytes",
            got=f"{total_bytes(path)} bytes",
        )
    if not check(path).externals:
        return path.read_bytes()
    import onnx

    whole: bytes = onnx.load(path).SerializeToString()
    return whole


def _ship(
    job: Job,
    role: str,
    target: Target,
    student: Trained | None,
    needs: dict[str, Any],
    model: Callable[[], bytes],
) -> Shipped:
    backend = BACKENDS.get(target.backend)()
    kept = f"{role}.onnx"

    def work(folder: Path) -> tuple[dict[str, Any], list[str]]:
        source = model()
        built = backend.build(source, target, folder / role)
        if built.name != kept:
            atomic_write(folder / kept, source)
        return {}, sorted({built.name, kept})

    stage = job.run.stage(
        f"export/{role}/{target.name}",
        {
            **needs,
            "opset": target.opset,
            "batch_size": target.conditions.batch_size,
            "backend": f"{target.backend} {backend.version()}",
        },
        work,
    )
    built = next((name for name in stage.files if name != kept), kept)
    artifact = _as_artifact(job, stage, built, target)
    return Shipped(role, target, artifact, stage.file(kept), student)


def _as_artifact(job: Job, stage: Stage, name: str, target: Target) -> Artifact:
    path = stage.file(name)
    batch = target.conditions.batch_size
    return Artifact(
        path=path,
        sha256=stage.files[name],
        backend=target.backend,
        target=target.name,
        inputs=(TensorSpec(INPUT, "float32", (batch, *job.spec.input_shape)),),
        outputs=(TensorSpec(OUTPUT, "float32", (batch, job.spec.outputs)),),
        size_bytes=path.stat().st_size,
    )

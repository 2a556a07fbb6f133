"""The training loop: the same weights to the last bit, however often it is killed on the way.

Nothing random has a state: the order of samples is a function of (seed, epoch), a sample's look of
(view seed, view, sample), dropout of (seed, step). So a checkpoint needs only tensors and a
position, and continuing from one repeats exactly what an undisturbed run does next, as long as
torch uses the same number of threads (`torch.set_num_threads`, decided by the caller).
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgekd.core.errors import DataError
from edgekd.core.hashing import sha256_json
from edgekd.distill.augment import apply_view, check_augment
from edgekd.distill.checkpoint import Checkpoint, CheckpointFolder
from edgekd.distill.evaluation import evaluate
from edgekd.distill.feed import Feed, resident
from edgekd.distill.objectives.hard_label import HardLabel
from edgekd.distill.optimizer import learning_rate_factor
from edgekd.distill.settings import TrainSettings
from edgekd.distill.state import model_sha256, restore_state, state_tensors, with_prefix
from edgekd.distill.step import Stepper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgekd.core.progress import Bar, Progress
    from edgekd.distill.cache import TeacherOutputs
    from edgekd.distill.objectives._contract import Objective
    from edgekd.tasks._contract import Data, Split, Task

#: how often losses are looked at; reading one waits for the step to finish
_CHECK_EVERY_STEPS = 16
#: an epoch end within this many seconds of the last checkpoint writes none: an epoch of a tiny
#: network takes less time than making its checkpoint durable
_EPOCH_END_S = 1.0
#: fields that change what is learned; a section of a recipe may carry more than a TrainSettings
_DECISIVE = set(TrainSettings.model_fields) - {"checkpoint_every_s"}


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What one epoch did.

    Attributes:
        loss: Mean over its steps.
        train_s: Seconds of training, validation left out.
        validation_score: The task's metric on the validation split, float32.
        validation_loss: Cross-entropy on the validation split.
    """

    loss: float
    train_s: float
    validation_score: float
    validation_loss: float


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training did; the trained weights are in the model.

    Attributes:
        history: One record per epoch.
        best_epoch: With the highest validation score (the earliest of equals), counted from 0.
        steps: Updates made.
        train_s: Seconds of training over all sessions.
        stopped: `stop_when` ended it before its last epoch.
        resumed_from: Steps that were already done when this call began; None for a fresh start.
    """

    history: tuple[EpochRecord, ...]
    best_epoch: int
    steps: int
    train_s: float
    stopped: bool
    resumed_from: int | None


def train(
    model: nn.Module,
    data: Data,
    task: Task,
    *,
    settings: TrainSettings,
    objectives: Sequence[Objective] = (),
    teacher: TeacherOutputs | None = None,
    seed: int,
    folder: Path,
    progress: Progress,
    title: str,
    view_seed: int = 0,
    on_epoch_end: Callable[[int, EpochRecord], None] | None = None,
    stop_when: Callable[[Sequence[EpochRecord]], bool] | None = None,
) -> TrainResult:
    """Train `model` in place; the same call after a kill continues where the last one stopped.

    Args:
        model: With its first weights. It may carry `lr_scale` on parameters. What its layers
            remember between steps must be in buffers, or a resumed run would lose it.
        data: Learned from `data.train`; `data.validation` is only looked at.
        task: Scores the validation split.
        settings: How to train.
        objectives: Terms of the loss; none means cross-entropy with `settings.label_smoothing`.
        teacher: Its stored outputs, for objectives that read them.
        seed: Of order and dropout.
        folder: Where checkpoints go; one training only.
        progress: Told about every step.
        title: What the user calls this training.
        view_seed: Of the views of augmented samples; must be that of `teacher`, if there is one.
        on_epoch_end: Called with the epoch (from 0) and its record. After a kill it may be called
            again for the same epoch.
        stop_when: Asked after every epoch with the records so far; True ends the training there.
            It must depend on nothing else, or a resumed training would not end alike.

    Returns:
        History and counts. The model has the weights `settings.select` asks for, in eval mode.

    Raises:
        RecipeError: Objectives and networks do not fit, or augmentation and inputs.
        DataError: The loss is not finite; the text names epoch and step.
        RunFolderError: A checkpoint cannot be written.
    """
    check_augment(settings.augment, data.input_shape)
    if teacher is not None:
        teacher.check(settings, view_seed)
    terms = tuple(objectives) or (HardLabel(label_smoothing=settings.label_smoothing),)
    stepper = Stepper(
        model,
        settings,
        terms,
        input_shape=data.input_shape,
        teacher_shapes=teacher.shapes if teacher is not None else {},
        seed=seed,
    )
    key = sha256_json(
        {
            "settings": settings.model_dump(mode="json", include=_DECISIVE),
            "objectives": [_described(o) for o in terms],
            "precision": stepper.precision,
            "teacher": teacher.key if teacher is not None else None,
            "data": data.fingerprint,
            "model": model_sha256(model),
            "seed": seed,
            "view_seed": view_seed,
        }
    )
    run = _Run(
        stepper,
        settings,
        task,
        Feed(resident(data.train, data.input_shape), settings.batch_size, seed),
        resident(data.validation, data.input_shape),
        teacher,
        view_seed,
        CheckpointFolder(folder, key),
        on_epoch_end,
        title,
        stop_when,
    )
    with torch.random.fork_rng(devices=[]), stepper:
        return run.finish(progress)


def _described(objective: Any) -> dict[str, Any]:
    return {"name": type(objective).__name__, **objective.model_dump(mode="json")}


@dataclass
class _Run:
    """Position, history and best weights of one training."""

    stepper: Stepper
    settings: TrainSettings
    task: Task
    feed: Feed
    validation: Split
    teacher: TeacherOutputs | None
    view_seed: int
    checkpoints: CheckpointFolder
    on_epoch_end: Callable[[int, EpochRecord], None] | None
    title: str
    stop_when: Callable[[Sequence[EpochRecord]], bool] | None = None
    step: int = 0
    history: list[EpochRecord] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    epoch_s: float = 0.0

    def __post_init__(self) -> None:
        self.losses = torch.zeros(self.feed.steps_per_epoch)
        self._last_write = time.perf_counter()

    @property
    def total(self) -> int:
        return self.settings.epochs * self.feed.steps_per_epoch

    @property
    def best_epoch(self) -> int:
        return max(range(len(self.history)), key=lambda e: self.history[e].validation_score)

    def finish(self, progress: Progress) -> TrainResult:
        title = self.title
        resumed_from = self._resume(progress, title)
        self.stepper.model.train()
        self._last_write = time.perf_counter()
        with progress.bar(title, self.total, self.step) as bar:
            while len(self.history) < self.settings.epochs and not self._stopped():
                self._epoch(bar)
        if self.settings.select == "best_validation":
            self.stepper.model.load_state_dict(self.best)
        self.stepper.model.eval()
        seconds = sum(record.train_s for record in self.history)
        return TrainResult(
            tuple(self.history),
            self.best_epoch,
            self.step,
            seconds,
            len(self.history) < self.settings.epochs,
            resumed_from,
        )

    def _stopped(self) -> bool:
        return bool(self.history and self.stop_when is not None and self.stop_when(self.history))

    def _epoch(self, bar: Bar) -> None:
        """Finish the epoch that `self.step` lies in, validate, and write a checkpoint."""
        epoch = len(self.history)
        first = self.step - epoch * self.feed.steps_per_epoch
        started, before = time.perf_counter(), self.epoch_s
        for position in range(first, self.feed.steps_per_epoch):
            self.losses[position] = self._step(epoch, position)
            self.step += 1
            note = ""
            last = position + 1 == self.feed.steps_per_epoch
            due = time.perf_counter() - self._last_write >= self.settings.checkpoint_every_s
            if last or due or position % _CHECK_EVERY_STEPS == 0:
                note = self._note(epoch, position)
            bar.advance(1, note)
            self.epoch_s = before + time.perf_counter() - started
            if due and not last:
                self._write()
        self._validate(epoch)
        final = len(self.history) == self.settings.epochs
        if final or time.perf_counter() - self._last_write >= _EPOCH_END_S:
            self._write()

    def _step(self, epoch: int, position: int) -> Tensor:
        indices = self.feed.indices(epoch, position)
        plain, labels = self.feed.read(indices)
        view = self.settings.augment.view_of(epoch)
        inputs = apply_view(plain, indices, self.settings.augment, view=view, seed=self.view_seed)
        known = self.teacher.batch(view, indices) if self.teacher is not None else {}
        factor = learning_rate_factor(self.settings, self.step, self.feed.steps_per_epoch)
        return self.stepper.run(inputs, labels, known, step=self.step, rate_factor=factor)

    def _note(self, epoch: int, position: int) -> str:
        """A few words for the bar; stops at a loss that is not finite."""
        losses = self.losses[: position + 1]
        wrong = (~torch.isfinite(losses)).nonzero()
        if len(wrong):
            raise self._not_finite(epoch, int(wrong[0]), float(losses[wrong[0]]))
        note = f"epoch {epoch + 1}/{self.settings.epochs} loss {losses[-64:].mean().item():.3f}"
        if self.history:
            note += f" {self.task.metric} {self.history[-1].validation_score:.4f}"
        return note

    def _validate(self, epoch: int) -> None:
        found = evaluate(self.stepper.model, self.validation, self.task)
        if not torch.isfinite(torch.tensor(found.loss)):
            raise self._not_finite(epoch, self.feed.steps_per_epoch - 1, found.loss)
        mean = self.losses.double().mean().item()
        record = EpochRecord(mean, self.epoch_s, found.score, found.loss)
        self.history.append(record)
        self.epoch_s = 0.0
        if self.settings.select == "best_validation" and self.best_epoch == epoch:
            state = self.stepper.model.state_dict()
            self.best = {name: tensor.clone() for name, tensor in state.items()}
        if self.on_epoch_end is not None:
            self.on_epoch_end(epoch, record)

    def _write(self) -> None:
        done = self.step - len(self.history) * self.feed.steps_per_epoch
        tensors = state_tensors(self.stepper)
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors["losses"] = self.losses[:done]
        numbers = {
            "history": [asdict(record) for record in self.history],
            "epoch_s": self.epoch_s,
            "threads": torch.get_num_threads(),
        }
        self.checkpoints.write(Checkpoint(self.step, tensors, numbers))
        self._last_write = time.perf_counter()

    def _resume(self, progress: Progress, title: str) -> int | None:
        """Take over the newest checkpoint; returns its step."""
        checkpoint, complaints = self.checkpoints.newest()
        for line in complaints:
            progress.say(f"{title}: {line}")
        if checkpoint is None:
            if complaints:
                progress.say(f"{title}: starting over")
            self.checkpoints.clear()
            return None
        if checkpoint.numbers["threads"] != torch.get_num_threads():
            progress.say(
                f"{title}: continuing with {torch.get_num_threads()} threads after"
                f" {checkpoint.numbers['threads']}: the last bits of the weights may differ"
            )
        self.history = [EpochRecord(**fields) for fields in checkpoint.numbers["history"]]
        self.step, self.epoch_s = checkpoint.step, checkpoint.numbers["epoch_s"]
        restore_state(self.stepper, checkpoint.tensors)
        self.best = with_prefix(checkpoint.tensors, "best.")
        losses = checkpoint.tensors["losses"]
        self.losses[: len(losses)] = losses
        if self.step < self.total:
            progress.say(f"{title}: continuing after step {self.step} of {self.total}")
        return self.step

    def _not_finite(self, epoch: int, step: int, loss: float) -> DataError:
        return DataError(
            f"The loss is not finite in epoch {epoch + 1}, step {step + 1}.",
            expected="a finite number",
            got=f"{loss} in the training of {self.title}",
            todo="lower learning_rate, or set clip_norm (5 is a good start) or precision: float32",
        )

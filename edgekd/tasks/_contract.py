"""Contracts of a task and of a data source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgekd.core.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


class Split(Protocol):
    """One part of a data set. Reading is by index, so a source may keep its data on disk."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of every sample, shape (N,)."""

    def __len__(self) -> int:
        """Number of samples N."""

    def batch(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Inputs of those samples, normalised, shape (B, *input_shape); always finite.

        Raises:
            DataError: A sample is unreadable, of another shape, or holds NaN or infinity.
        """


@dataclass(frozen=True, slots=True)
class Data:
    """A labelled data set in three disjoint splits.

    Attributes:
        train: What students learn from; calibration samples come from here too.
        validation: What choices are made on (seeds, arms, early stops).
        test: Only ever reported on.
        classes: Name of each class; a label is an index into it.
        input_shape: Shape of one input, (C, H, W) for images.
        fingerprint: sha256 over everything that decides the content: files, splits, scaling.
        description: One line for the report: what it is, how many samples, where from.
    """

    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    fingerprint: str
    description: str


class Source(Protocol):
    """A data source; its pydantic fields are its settings in the recipe."""

    def load(self, folder: Path) -> Data:
        """Read the data; relative paths start at `folder`, the recipe's own.

        Raises:
            DataError: A file is missing, cut off or malformed, or labels are out of range.
        """


class Task(Protocol):
    """What a model's outputs mean."""

    @property
    def metric(self) -> str:
        """What `score` gives, e.g. accuracy."""

    def output_width(self, data: Data) -> int:
        """Number of outputs a model for this data needs."""

    def decide(self, logits: NDArray[np.float32]) -> NDArray[np.int64]:
        """The decision for each sample; (N, outputs) -> (N,)."""

    def score(self, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
        """The metric, higher is better, in [0, 1]."""

    def standard_error(self, score: float, count: int) -> float:
        """How far chance moves a score of `count` samples: one standard deviation."""


SOURCES: Registry[Source] = Registry("data source", "edgekd.tasks.sources")
TASKS: Registry[Task] = Registry("task", "edgekd.tasks")

if TYPE_CHECKING:
    # what a recipe's fields hold once they are read
    SourceField = Source
    TaskField = Task
else:
    SourceField, TaskField = SOURCES.field(), TASKS.field()

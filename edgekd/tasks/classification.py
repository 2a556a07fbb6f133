"""One class out of several."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgekd.core.config import Config
from edgekd.tasks._contract import TASKS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekd.tasks._contract import Data

#: the decision for a sample whose logits are not numbers; no label equals it
UNDECIDED = -1


@TASKS.register
class Classification(Config):
    """One class out of several: one logit per class, the largest one decides.

    Attributes:
        metric: Accuracy, the fraction of samples whose decision is their label.
    """

    metric: Literal["accuracy"] = "accuracy"

    def output_width(self, data: Data) -> int:
        """One logit for each class."""
        return len(data.classes)

    def decide(self, logits: NDArray[np.float32]) -> NDArray[np.int64]:
        """Index of the largest logit, (N, C) -> (N,).

        The first of equal ones wins. A row that holds NaN is `UNDECIDED`, hence always wrong.
        """
        best: NDArray[np.int64] = logits.argmax(axis=1).astype(np.int64)
        best[np.isnan(logits).any(axis=1)] = UNDECIDED
        return best

    def score(self, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
        """Accuracy in [0, 1]; logits (N, C), labels (N,).

        Raises:
            ValueError: There is nothing to score, or the two are of different lengths.
        """
        if len(logits) != len(labels) or len(labels) == 0:
            raise ValueError(f"cannot score {len(logits)} outputs against {len(labels)} labels")
        return float(np.mean(self.decide(logits) == labels))

    def standard_error(self, score: float, count: int) -> float:
        """Of a fraction of `count` independent samples: sqrt(p (1 - p) / n)."""
        return math.sqrt(max(score * (1 - score), 0.0) / count)

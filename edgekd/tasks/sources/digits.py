"""The real handwritten digits that scikit-learn ships: nothing to download."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgekd.core.config import Config
from edgekd.core.hashing import sha256_arrays
from edgekd.tasks._contract import SOURCES, Data
from edgekd.tasks.sources._assemble import assemble, make_pool
from edgekd.tasks.sources._scaling import Scaling
from edgekd.tasks.sources._splits import Seed, Share

if TYPE_CHECKING:
    from pathlib import Path


@SOURCES.register
class Digits(Config):
    """1,797 grey images of handwritten digits, 8x8 pixels, 10 classes.

    They are the test part of the "Optical Recognition of Handwritten Digits" set (Alpaydin and
    Kaynak, 1998, UCI Machine Learning Repository).

    Attributes:
        validation: Share for validation: a fraction of all samples, or a number of them.
        test: Share for test, the same way.
        seed: Of the split, which is stratified: each class is shared out in proportion.
        scaling: How pixels are scaled.
    """

    validation: Share = 0.2
    test: Share = 0.2
    seed: Seed = 0
    scaling: Scaling = Scaling()

    def load(self, folder: Path) -> Data:
        """All digits; `folder` is not read."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = (bunch.images[:, None] / 16).astype(np.float32)  # stored as 0 to 16
        labels = bunch.target.astype(np.int64)
        return assemble(
            {"all": make_pool(images, labels, "digits")},
            validation=self.validation,
            test=self.test,
            seed=self.seed,
            classes=[str(i) for i in range(10)],
            scaling=self.scaling,
            content=sha256_arrays({"images": images, "labels": labels}),
            title="handwritten digits of scikit-learn",
        )

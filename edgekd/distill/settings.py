"""How a network is trained: the fields of the recipe's `train` sections."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from edgekd.core.config import Config

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Fraction = Annotated[float, Field(ge=0, lt=1)]


class Augment(Config):
    """Random changes of the training images.

    A view is one full pass of changes over the train split: sample i in view v always looks the
    same, so a teacher has to see each view only once.

    Attributes:
        crop_px: Mirror padding on each side before a crop of the original size; 0 for no crop.
            Mirroring needs no pixel value that would be right under every normalisation.
        flip: Mirror half of the samples left to right.
        views: Epoch e trains on view e modulo `views`; 0 means a fresh view every epoch. Without
            any change (`crop_px` 0 and no `flip`) there is one view, whatever is written here.
    """

    crop_px: Annotated[int, Field(ge=0, le=64)] = 0
    flip: bool = False
    views: Annotated[int, Field(ge=0, le=10_000)] = 8

    @property
    def changes(self) -> bool:
        """Whether a view differs from the plain samples at all."""
        return self.crop_px > 0 or self.flip

    def view_of(self, epoch: int) -> int:
        """Which view epoch `epoch` trains on."""
        if not self.changes:
            return 0
        return epoch % self.views if self.views else epoch

    def view_count(self, epochs: int) -> int:
        """How many different views a training of `epochs` epochs sees."""
        if not self.changes:
            return 1
        return min(self.views or epochs, epochs)


class TrainSettings(Config):
    """One training.

    Attributes:
        epochs: Passes over the train split.
        batch_size: Samples of one step; a rest of one sample is dropped (batch norm needs two).
        optimizer: Stochastic gradient descent with momentum, or AdamW.
        learning_rate: At the peak, after warm-up.
        weight_decay: Of matrices and convolutions; biases and norms are never decayed.
        momentum: Of sgd.
        nesterov: Nesterov momentum of sgd.
        warmup_epochs: Epochs over which the rate grows linearly from zero.
        schedule: Cosine to zero at the last step, or constant.
        label_smoothing: Of the plain label loss used when no objectives are given (teacher and
            control arm); an objective that reads labels has its own.
        clip_norm: Largest gradient norm; None for no clipping.
        precision: "auto" is bfloat16 autocast where the CPU multiplies bfloat16 natively and the
            network is large enough to gain, otherwise float32: a fixed rule, never a timing.
        channels_last: Memory layout of images; "auto" is yes for networks with convolutions.
        augment: Random changes of the training images.
        select: Weights of the last epoch, or of the epoch best on the validation split.
        checkpoint_every_s: A checkpoint is written when this many seconds have passed since the
            last one, at the end of every epoch that took a second or more, and at the end.
    """

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 30
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: _Positive = 0.1
    weight_decay: _NotNegative = 5e-4
    momentum: _Fraction = 0.9
    nesterov: bool = True
    warmup_epochs: _NotNegative = 1.0
    schedule: Literal["cosine", "constant"] = "cosine"
    label_smoothing: _Fraction = 0.0
    clip_norm: _Positive | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    channels_last: Literal["auto"] | bool = "auto"
    augment: Augment = Augment()
    select: Literal["last", "best_validation"] = "last"
    checkpoint_every_s: _Positive = 30.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs:g}, more than the {self.epochs} epochs"
            )
        if self.optimizer == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0; write nesterov: false")
        return self

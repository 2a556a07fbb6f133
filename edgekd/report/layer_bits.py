"""The report on what each layer's weights got: bits under a budget, points of a codebook."""

from __future__ import annotations

from edgekd.report.value import Value


class BitsOption(Value):
    """One width offered to one layer.

    Attributes:
        bits: Per weight; None for float.
        size_bytes: Of the layer's weights with scales.
        loss_increase: Measured on train samples, with only this layer quantized.
        slower_us: What a student takes more with this layer changed from the widest integers,
            medians measured in turns; None where nothing was timed.
        same_kernels: The runtime ran the same kernels as with the widest integers, so that it
            counts as equally fast.
    """

    bits: int | None
    size_bytes: int
    loss_increase: float
    slower_us: float | None = None
    same_kernels: bool = False


class LayerBits(Value):
    """What one layer's weights are stored in; `bits` None for float, no options under a rule."""

    layer: str
    weights: int
    bits: int | None
    size_bytes: int
    options: tuple[BitsOption, ...]
    why: str


class MixedTime(Value):
    """How bits were chosen under a latency, on students that were not trained yet.

    Attributes:
        budget_ms: For the median of the whole student on every target.
        widest_bits: The widest integers offered, which the layers' times are compared with.
        widest_us: Median of the student with these everywhere, on the slowest target.
        repeat_us: How far that median went apart when the same file was timed again.
        predicted_us: That, and the chosen layers' differences added up.
        measured_ms: Target -> certified median of the student with the chosen bits.
        tries: Choices that were timed as a whole.
    """

    budget_ms: float
    widest_bits: int
    widest_us: float
    repeat_us: float
    predicted_us: float
    measured_ms: dict[str, float]
    tries: int


class MixedBits(Value):
    """Bits of every layer, chosen under a budget.

    Attributes:
        scheme: Of the targets they are for; empty where there is one scheme.
        budget_bytes: For the weights of all layers with scales; None under a budget of time.
        size_bytes: What they take.
        predicted_increase: Of the loss: the layers' own increases added up.
        samples: On which the increases were measured.
        time: None under a budget of bytes.
    """

    scheme: str
    budget_bytes: int | None
    size_bytes: int
    predicted_increase: float
    samples: int
    layers: tuple[LayerBits, ...]
    time: MixedTime | None = None


class LayerPoints(Value):
    """Points of one layer's codebook: as its quantizer has them, and as they were shared out."""

    layer: str
    norm: float
    before: int
    after: int


class SharedPoints(Value):
    """Codebook points shared out between layers by the norm of each layer's mean gradient.

    Attributes:
        scheme: Of the targets they are for; empty where there is one scheme.
        samples: Train samples that the gradients were taken on, for each seed.
        layers: In execution order; norms are means over the seeds.
    """

    scheme: str
    samples: int
    layers: tuple[LayerPoints, ...]

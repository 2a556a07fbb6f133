"""The recipe's `quantize:` section, as far as quantization itself goes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from edgekd.core.budget import Milliseconds, SizeBytes
from edgekd.core.config import Config
from edgekd.core.errors import RecipeError
from edgekd.core.types import Granularity
from edgekd.quantize.quantizers._contract import QUANTIZERS, QuantizerField
from edgekd.quantize.rules import Pattern, PlacedRule, Rule, in_order

#: 7 bits are 8 without overflow on old CPUs; they need no more care
_FEW_BITS = 7
_TRAINING_ONLY = ("learned_ranges", "learned_zero_points", "freeze_oscillating")


class MixedSettings(Config):
    """Bits of each layer, chosen by what they cost in loss, under a budget of bytes or of time.

    Attributes:
        bits: The widths offered to every layer that no rule names.
        budget: Bytes that the weights of all layers may take, with scales and with the layers
            under rules; biases are not counted. A number, or text such as 31KiB.
        bits_per_weight: The same budget as an average over all weights, scales counted.
        latency: Time that one inference of the whole student may take on each target, such as
            2ms: the median, certified. What every width of every layer takes is measured there
            before any training; a layer that no rule names may then also stay in float. One of
            the three is given.
        samples: Train samples on which the loss of every layer at every width is measured.
    """

    bits: Annotated[tuple[Annotated[int, Field(ge=1, le=8)], ...], Field(min_length=1)]
    budget: SizeBytes | None = None
    bits_per_weight: Annotated[float, Field(gt=0)] | None = None
    latency: Milliseconds | None = None
    samples: Annotated[int, Field(ge=1)] = 1024

    @field_validator("bits")
    @classmethod
    def _ascending(cls, bits: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(bits)))

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        given = (self.budget, self.bits_per_weight, self.latency)
        if sum(one is not None for one in given) != 1:
            raise ValueError("give one of budget, bits_per_weight and latency")
        return self


class FreezeSettings(Config):
    """Freezing of weights that flip between two codes (Nagel et al. 2022, arXiv 2203.11086).

    Attributes:
        threshold: Flips per step, as a moving average, above which a weight is frozen.
        momentum: Share of the newest step in that average.
        start: Share of the training before the first weight is frozen.
    """

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.02
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.01
    start: Annotated[float, Field(ge=0, lt=1)] = 0.5


class QuantizeSettings(Config):
    """How a float student becomes integers.

    Attributes:
        method: quantized_distillation trains through the rounding with the teacher's help and
            also reports post-training quantization; post_training stops there.
        weights: The weight quantizer and its fields.
        granularity: Which weights share a scale: {kind: per_tensor}, {kind: per_channel} or
            {kind: per_block, size: 256}; null for what the target's integer kernels want.
        activation_bits: Of every tensor between layers; float quantizes weights alone, which
            makes the file small and leaves the arithmetic in float.
        ranges: How activation ranges are read off calibration data.
        learned_ranges: Train the activation scales as well (quantized distillation only).
        learned_zero_points: And the zero points of tensors that have negative values, where the
            target has any.
        calibration_samples: How many train samples are looked at.
        restore_statistics: Put back the mean and the spread that rounding takes from each channel,
            on the calibration samples, as batch norms re-estimated behind the rounded weights
            would; auto is yes where some weights or activations have fewer than 7 bits. The mean
            again after training, in layers of which it moves nothing but codebook points.
        freeze_oscillating: Freeze weights that keep flipping between two codes, near the end of
            training; null for never.
        keep_float: Patterns of layers that stay in float; short for rules in front of the others.
        rules: Which layers get another weight quantizer, or none; the last match wins.
        redistribute_batches: Train minibatches whose gradients decide how the points of trained
            codebooks are shared out between layers (the paper has 5); 0 for what each layer's
            quantizer says.
        mixed: Choose the bits of the layers that no rule names by measurement; null for those of
            `weights`.
    """

    method: Literal["quantized_distillation", "post_training"] = "quantized_distillation"
    weights: QuantizerField = Field(default="minmax", validate_default=True)
    granularity: Granularity | None = None
    activation_bits: Annotated[int, Field(ge=2, le=8)] | Literal["float"] = 8
    ranges: Literal["minmax", "percentile", "mse"] = "mse"
    learned_ranges: bool = True
    learned_zero_points: bool = False
    calibration_samples: Annotated[int, Field(ge=1)] = 512
    restore_statistics: Literal["auto"] | bool = "auto"
    freeze_oscillating: FreezeSettings | None = None
    keep_float: tuple[Pattern, ...] = ()
    rules: tuple[Rule, ...] = ()
    redistribute_batches: Annotated[int, Field(ge=0)] = 0
    mixed: MixedSettings | None = None

    @field_validator("learned_zero_points")
    @classmethod
    def _with_ranges(cls, learned: bool, info: ValidationInfo) -> bool:
        if learned and not info.data.get("learned_ranges", True):
            raise ValueError("needs learned_ranges: true")
        return learned

    @model_validator(mode="after")
    def _every_width_exists(self) -> Self:
        for bits in self.mixed.bits if self.mixed is not None else ():
            spec = QUANTIZERS.spec_of(self.weights)
            try:
                QUANTIZERS.build({**spec, "bits": bits})
            except RecipeError as e:
                raise ValueError(
                    f"mixed.bits offers {bits}, which the quantizer {spec['name']!r} does not have"
                ) from e
        return self

    def placed_rules(self) -> tuple[PlacedRule, ...]:
        """`keep_float` and `rules` as one ordered list."""
        return in_order(self.keep_float, self.rules)

    def within(self, weight_bits: int) -> Self:
        """The same with no weight in more than `weight_bits` bits.

        Raises:
            RecipeError: A quantizer has no such width.
        """

        def held(quantizer: Any) -> Any:
            if quantizer == "float" or quantizer.bits <= weight_bits:
                return quantizer
            return QUANTIZERS.build({**QUANTIZERS.spec_of(quantizer), "bits": weight_bits})

        mixed = self.mixed
        if mixed is not None:
            offered = tuple(sorted({min(bits, weight_bits) for bits in mixed.bits}))
            mixed = mixed.model_copy(update={"bits": offered})
        rules = tuple(r.model_copy(update={"weights": held(r.weights)}) for r in self.rules)
        return self.model_copy(
            update={"weights": held(self.weights), "rules": rules, "mixed": mixed}
        )

    def few_bits(self) -> bool:
        """Whether any weight or activation has fewer than 7 bits, or may have."""
        quantizers = (self.weights, *(r.weights for r in self.rules if r.weights != "float"))
        widths = [q.bits for q in quantizers]
        if self.activation_bits != "float":
            widths.append(self.activation_bits)
        return min(widths) < _FEW_BITS or self.mixed is not None

    def restores_statistics(self) -> bool:
        """`restore_statistics`, decided."""
        chosen = self.restore_statistics
        return self.few_bits() if chosen == "auto" else chosen

    def needs(self) -> dict[str, Any]:
        """What post-training quantization depends on."""
        mine = set(QuantizeSettings.model_fields) - {"method", *_TRAINING_ONLY}
        return self.model_dump(mode="json", include=mine)

    def training_needs(self) -> dict[str, Any]:
        """What training through the rounding depends on besides."""
        return self.model_dump(mode="json", include=set(_TRAINING_ONLY))

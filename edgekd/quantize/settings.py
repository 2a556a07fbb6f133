"""The recipe's `quantize:` section, as far as quantization itself goes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from edgekd.core.config import Config
from edgekd.core.types import Granularity
from edgekd.quantize.quantizers._contract import QuantizerField
from edgekd.quantize.rules import Pattern, PlacedRule, Rule, in_order


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
        calibration_samples: How many train samples are looked at.
        keep_float: Patterns of layers that stay in float; short for rules in front of the others.
        rules: Which layers get another weight quantizer, or none; the last match wins.
    """

    method: Literal["quantized_distillation", "post_training"] = "quantized_distillation"
    weights: QuantizerField = Field(default="minmax", validate_default=True)
    granularity: Granularity | None = None
    activation_bits: Annotated[int, Field(ge=2, le=8)] | Literal["float"] = 8
    ranges: Literal["minmax", "percentile", "mse"] = "mse"
    learned_ranges: bool = True
    calibration_samples: Annotated[int, Field(ge=1)] = 512
    keep_float: tuple[Pattern, ...] = ()
    rules: tuple[Rule, ...] = ()

    def placed_rules(self) -> tuple[PlacedRule, ...]:
        """`keep_float` and `rules` as one ordered list."""
        return in_order(self.keep_float, self.rules)

    def needs(self) -> dict[str, Any]:
        """What post-training quantization depends on."""
        mine = set(QuantizeSettings.model_fields) - {"method", "learned_ranges"}
        return self.model_dump(mode="json", include=mine)

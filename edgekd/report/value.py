"""What every part of a report is made of: frozen, finite, and written as strict JSON."""

from __future__ import annotations

import json

from pydantic import ConfigDict

from edgekd.core.config import Config


class Value(Config):
    """Base of everything in a report: frozen, and NaN or infinity is refused where it is made."""

    # "constants": a NaN in a free-form part must reach `to_json` and be refused, not become null
    model_config = ConfigDict(allow_inf_nan=False, ser_json_inf_nan="constants")

    def to_json(self) -> str:
        """Strict JSON, keys in the order of the fields, ending in a newline.

        Raises:
            ValueError: A free-form part (recipe, environment, layers) holds NaN or infinity.
        """
        plain = self.model_dump(mode="json", by_alias=True)
        return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

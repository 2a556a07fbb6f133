"""What a training consists of, as named tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgekd.core.hashing import sha256_arrays

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgekd.distill.step import Stepper

_MODEL, _PROJECTORS, _OPTIMIZER = "model.", "projectors.", "optimizer."


def model_sha256(model: nn.Module) -> str:
    """Hex digest over names, shapes and values of parameters and buffers."""
    return sha256_arrays(
        {name: t.detach().contiguous().numpy() for name, t in model.state_dict().items()}
    )


def state_tensors(stepper: Stepper) -> dict[str, Tensor]:
    """Model, projectors and optimizer; the tensors themselves, not copies."""
    tensors = {_MODEL + name: t for name, t in stepper.model.state_dict().items()}
    tensors |= {_PROJECTORS + name: t for name, t in stepper.projectors.state_dict().items()}
    for index, parameter in enumerate(_parameters(stepper.optimizer)):
        for name, value in stepper.optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                tensors[f"{_OPTIMIZER}{index}.{name}"] = value
    return tensors


def restore_state(stepper: Stepper, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `state_tensors` gave; memory layouts stay those of the stepper."""
    stepper.model.load_state_dict(with_prefix(tensors, _MODEL))
    stepper.projectors.load_state_dict(with_prefix(tensors, _PROJECTORS))
    parameters = _parameters(stepper.optimizer)
    for name, value in with_prefix(tensors, _OPTIMIZER).items():
        index, _, field = name.partition(".")
        parameter = parameters[int(index)]
        same_layout = torch.empty_like(parameter) if value.shape == parameter.shape else value
        state: Any = stepper.optimizer.state[parameter]
        state[field] = same_layout.copy_(value).detach()


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose name starts with `prefix`, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]

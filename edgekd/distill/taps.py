"""Reading inner activations of a module by the paths of its layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn

from edgekd.core.config import nearest
from edgekd.core.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Taps:
    """Forward hooks on named layers; a context manager, the hooks are gone behind it.

    What is kept is a copy: a later layer that works in place (a ReLU mostly) would otherwise
    change it unseen. Gradients flow through the copy.

    Args:
        module: The network.
        paths: Dotted paths of layers, as `named_modules` gives them.
        owner: Who it is, for errors: "student" or "teacher".

    Raises:
        RecipeError: There is no layer of that path; the nearest ones are named.
    """

    def __init__(self, module: nn.Module, paths: Sequence[str], *, owner: str) -> None:
        layers = {name: layer for name, layer in module.named_modules() if name}
        for path in paths:
            if path not in layers:
                raise RecipeError(
                    f"The {owner} has no layer {path!r}{nearest(path, list(layers))}"
                )
        self._owner = owner
        self._layers = {path: layers[path] for path in paths}
        self._seen: dict[str, Tensor] = {}
        self._repeated: set[str] = set()
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        for path, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(self._keeper(path)))
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._seen.clear()

    def collect(self) -> dict[str, Tensor]:
        """The activations of the forward pass that just ran, each (B, ...), and forget them.

        Raises:
            RecipeError: A layer did not run, ran twice, or gives something else than a tensor.
        """
        seen, self._seen = self._seen, {}
        for path in self._layers:
            if path in self._repeated:
                raise RecipeError(
                    f"The layer {path!r} of the {self._owner} runs more than once in a pass.",
                    expected="a layer that runs once, so that it is clear which output is meant",
                    todo="name a layer around or behind it",
                )
            if path not in seen:
                raise RecipeError(
                    f"The layer {path!r} of the {self._owner} does not run in a pass.",
                    expected="a layer whose own forward is called",
                    todo="name a layer inside it; a traced network calls only innermost layers",
                )
        return seen

    def _keeper(self, path: str) -> Any:
        def hook(_layer: nn.Module, _inputs: object, output: object) -> None:
            if not isinstance(output, Tensor):
                raise RecipeError(
                    f"The layer {path!r} of the {self._owner} does not give one tensor.",
                    got=type(output).__name__,
                    todo="name a layer inside it",
                )
            if path in self._seen:
                self._repeated.add(path)
            self._seen[path] = output.clone()

        return hook

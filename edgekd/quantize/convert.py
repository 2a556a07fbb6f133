"""From a float student to a quantized one: calibrate, train through the rounding, freeze."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from edgekd.core.errors import DataError, RecipeError
from edgekd.core.types import Affine, PerChannel, PerTensor, QuantizedStudent, Scheme
from edgekd.numerics.encoding import round_trip
from edgekd.quantize.fake_quant import ActivationFakeQuant
from edgekd.quantize.fold import fold_batch_norms, trace
from edgekd.quantize.observers import Observer
from edgekd.quantize.oscillation import Oscillation
from edgekd.quantize.placement import Placement, place
from edgekd.quantize.restore import restore_means, restore_statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekd.numerics.groups import Granularity
    from edgekd.quantize.settings import QuantizeSettings

_BATCH = 128
_SUFFIX = "_grid"


class QuantizedLayer(nn.Module):
    """A convolution or linear layer that computes with its weight on the grid.

    Args:
        layer: The float layer; its weight and bias are trained.
        weight_fake_quant: From a quantizer.

    Attributes:
        oscillation: Where weights that flip are frozen: what watches them.
    """

    def __init__(self, layer: nn.Module, weight_fake_quant: Any) -> None:
        super().__init__()
        self.layer, self.weight_fake_quant = layer, weight_fake_quant
        self.oscillation: Oscillation | None = None

    def settle(self) -> None:
        """Put frozen weights where they belong; in training, look for more of them."""
        if self.oscillation is None:
            return
        weight: Any = self.layer.weight
        encoding = self.weight_fake_quant.encoding(weight)
        self.oscillation.hold(weight, encoding)
        if self.training:
            self.oscillation.see(weight, encoding)

    def forward(self, value: Tensor) -> Tensor:
        """As the layer, with the rounded weight."""
        layer: Any = self.layer
        self.settle()
        weight = self.weight_fake_quant(layer.weight)
        if isinstance(layer, nn.Linear):
            return F.linear(value, weight, layer.bias)
        out: Tensor = layer._conv_forward(value, weight, layer.bias)
        return out


class QuantizationAware:
    """A student being trained through its rounding.

    Args:
        student: Trained float module; left alone.
        settings: The recipe's section.
        scheme: Of the targets it is for.
        calibration: Real train inputs, (N, …).
        seed: Of the sampling of activations.
        steps: Of the training that follows; 0 for none.

    Attributes:
        module: What to train; parameters are the float weights and, if learned, the scales.
    """

    def __init__(
        self,
        student: nn.Module,
        settings: QuantizeSettings,
        scheme: Scheme,
        calibration: NDArray[np.float32],
        *,
        learned: bool,
        seed: int,
        steps: int = 0,
    ) -> None:
        self.graph = fold_batch_norms(trace(student))
        self.placement = place(
            self.graph,
            rules=settings.placed_rules(),
            activations=settings.activation_bits != "float",
        )
        self._learned = learned
        ranges = _calibrate(self.graph, self.placement, settings, scheme, calibration, seed)
        shared = granularity_for(settings, scheme)
        self.module = _with_fake_quant(
            self.graph, self.placement, settings, shared, ranges, learned
        )
        if settings.restores_statistics():
            restore_statistics(
                self.graph,
                self.module,
                self.placement.weights,
                calibration,
                lambda path: _requantize(self.module, self.placement, settings, shared, path),
            )
        # what training leaves alone cannot follow what it moves
        still = [p for p in self.placement.weights if not self._trains(p)]
        self._still = still if settings.restores_statistics() else []
        self._calibration = calibration if self._still else calibration[:0]

        if settings.freeze_oscillating is not None and steps:
            start = int(settings.freeze_oscillating.start * steps)
            for path in self.placement.weights:
                quantized: Any = self.module.get_submodule(path)
                weight = quantized.layer.weight
                if weight.requires_grad:
                    watch = Oscillation(weight, settings.freeze_oscillating, start_step=start)
                    quantized.oscillation = watch

    def _trains(self, path: str) -> bool:
        quantized: Any = self.module.get_submodule(path)
        return bool(quantized.layer.weight.requires_grad)

    def freeze(self) -> QuantizedStudent:
        """The integers as they stand now.

        Raises:
            DataError: Training has left a weight that is not finite.
        """
        if self._still:
            restore_means(self.graph, self.module, self._still, self._calibration)
        layers = dict(self.module.named_modules())
        graph = copy.deepcopy(self.graph)
        weights, activations = {}, {}
        for path in self.placement.weights:
            quantized = layers[path]
            assert isinstance(quantized, QuantizedLayer)
            quantized.eval().settle()
            source: Any = quantized.layer
            _refuse_unusable(path, source.weight, PerTensor())
            weights[path] = quantized.weight_fake_quant.encoding(source.weight)
            graph.get_submodule(path).load_state_dict(source.state_dict())
        for path in self.placement.skipped:
            if path in layers:
                graph.get_submodule(path).load_state_dict(layers[path].state_dict())
        for node in self.placement.quantized:
            grid = layers[node + _SUFFIX]
            assert isinstance(grid, ActivationFakeQuant)
            activations[node] = grid.affine()
        for node, owner in self.placement.shared.items():
            activations[node] = activations[owner]
        return QuantizedStudent(
            graph=graph.eval(),
            weights=weights,
            activations=activations,
            skipped=dict(self.placement.skipped),
            activation_ranges="learned" if self._learned else "observed",
        )


def simulate(student: QuantizedStudent) -> fx.GraphModule:
    """The quantized student in torch: stored codes decoded, activations put on their grids.

    This is the "torch fake-quant" rung that every exported file is compared with.
    """
    graph: fx.GraphModule = copy.deepcopy(student.graph)
    with torch.no_grad():
        for path, encoding in student.weights.items():
            layer: Any = graph.get_submodule(path)
            layer.weight.copy_(torch.from_numpy(round_trip(layer.weight.numpy(), encoding)))
    grids = {
        name: ActivationFakeQuant(a, learned=False) for name, a in student.activations.items()
    }
    _insert(graph, grids)
    graph.eval()
    return graph


def taps(module: fx.GraphModule, inputs: Tensor) -> dict[str, NDArray[np.float32]]:
    """Every activation on a grid, by the node that makes it, in execution order."""
    seen: dict[str, NDArray[np.float32]] = {}

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            seen[name] = output.detach().numpy()

        return hook

    handles = [
        layer.register_forward_hook(keep(name.removesuffix(_SUFFIX)))
        for name, layer in module.named_modules()
        if isinstance(layer, ActivationFakeQuant)
    ]
    try:
        with torch.no_grad():
            module(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _calibrate(
    graph: fx.GraphModule,
    placement: Placement,
    settings: QuantizeSettings,
    scheme: Scheme,
    calibration: NDArray[np.float32],
    seed: int,
) -> dict[str, Affine]:
    if settings.activation_bits == "float":
        return {}
    if len(calibration) == 0:
        raise DataError("Calibration got no samples.", expected="at least one train sample")
    observers = {name: Observer(name, seed=seed) for name in placement.quantized}
    share = 0.0

    class _Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            out = super().run_node(n)
            if n.name in observers:
                observers[n.name].observe(out.detach().numpy(), share=share)
            return out

    with torch.no_grad():
        for start in range(0, len(calibration), _BATCH):
            batch = calibration[start : start + _BATCH]
            share = len(batch) / len(calibration)
            _Watch(graph).run(torch.from_numpy(batch))
    signed = scheme.activations == "int8"
    return {
        name: observer.affine(settings.ranges, bits=settings.activation_bits, signed=signed)
        for name, observer in observers.items()
    }


def granularity_for(settings: QuantizeSettings, scheme: Scheme) -> Granularity:
    """Which weights share a scale, where no rule says otherwise."""
    if settings.granularity is not None:
        return settings.granularity
    return PerChannel(axis=0) if scheme.weight_granularity == "per_channel" else PerTensor()


def _with_fake_quant(
    graph: fx.GraphModule,
    placement: Placement,
    settings: QuantizeSettings,
    granularity: Granularity,
    ranges: dict[str, Affine],
    learned: bool,
) -> fx.GraphModule:
    module = copy.deepcopy(graph)
    for path in placement.weights:
        parent, _, name = path.rpartition(".")
        layer: Any = module.get_submodule(path)
        quantizer, shared = _chosen(placement, settings, granularity, path)
        _refuse_unusable(path, layer.weight, shared)
        fake = quantizer.fake_quant(layer.weight, shared)
        layer.requires_grad_(getattr(fake, "trains_layer", True))
        setattr(module.get_submodule(parent), name, QuantizedLayer(layer, fake))
    zeros = learned and settings.learned_zero_points
    _insert(
        module,
        {
            name: ActivationFakeQuant(affine, learned=learned, learned_zero_point=zeros)
            for name, affine in ranges.items()
        },
    )
    return module


def _refuse_unusable(path: str, weight: Tensor, granularity: Granularity) -> None:
    """Raises where no quantizer can say anything about the weight of the layer `path`."""
    if weight.numel() == 0:
        raise DataError(
            f"The layer {path!r} has no weights.",
            expected="at least one",
            got=f"a weight of shape {tuple(weight.shape)}",
            todo="drop the layer, or keep it in float with a rule",
        )
    if not torch.isfinite(weight).all():
        raise DataError(
            f"The weight of the layer {path!r} is not finite.",
            expected="finite numbers",
            todo="train again with a lower learning rate; look at the input scaling",
        )
    if isinstance(granularity, PerChannel) and not -weight.ndim <= granularity.axis < weight.ndim:
        raise RecipeError(
            f"The weight of the layer {path!r} has no axis {granularity.axis}.",
            expected=f"granularity with an axis below {weight.ndim}",
            got=f"a weight of shape {tuple(weight.shape)}",
            todo="give the layer another granularity with a rule",
        )


def _chosen(
    placement: Placement, settings: QuantizeSettings, granularity: Granularity, path: str
) -> tuple[Any, Granularity]:
    """Quantizer and granularity of one layer."""
    chosen = placement.chosen.get(path)
    if chosen is None:
        return settings.weights, granularity
    return chosen.quantizer, chosen.granularity or granularity


def _requantize(
    module: fx.GraphModule,
    placement: Placement,
    settings: QuantizeSettings,
    granularity: Granularity,
    path: str,
) -> None:
    """Start the quantizer of one layer anew, from the weights as they are."""
    quantized: Any = module.get_submodule(path)
    quantizer, shared = _chosen(placement, settings, granularity, path)
    quantized.weight_fake_quant = quantizer.fake_quant(quantized.layer.weight, shared).eval()


def _insert(module: fx.GraphModule, grids: dict[str, ActivationFakeQuant]) -> None:
    """Put each grid behind the node of its name."""
    for node in list(module.graph.nodes):
        if node.name not in grids:
            continue
        name = node.name + _SUFFIX
        module.add_submodule(name, grids[node.name])
        with module.graph.inserting_after(node):
            grid = module.graph.call_module(name, (node,))
        node.replace_all_uses_with(grid, delete_user_cb=lambda user, grid=grid: user is not grid)
    module.recompile()

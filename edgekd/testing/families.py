"""What every student family must do, as checks that a plugin author runs too.

::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
    def test_my_family(check):
        check(MyFamily(), NetSpec((3, 16, 16), 10))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from edgekd.students._build import build_seeded
from edgekd.students._cost import measure_cost

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgekd.students._contract import Family, NetSpec

_BATCH = 4


def gives_logits(family: Family, spec: NetSpec) -> None:
    """(B, *input_shape) -> finite float32 (B, outputs), in both modes."""
    net = build_seeded(family, spec, 0)
    for training in (True, False):
        logits = net.train(training)(_inputs(spec))
        wanted = (_BATCH, spec.outputs)
        assert logits.shape == wanted, f"shape {tuple(logits.shape)} instead of {wanted}"
        assert logits.dtype == torch.float32, f"{logits.dtype} instead of float32"
        assert torch.isfinite(logits).all(), "logits that are not finite"


def is_initialised_by_the_seed(family: Family, spec: NetSpec) -> None:
    """Equal seeds give equal weights, others others; the global generator is not moved."""
    state = torch.get_rng_state()
    first, again, other = (build_seeded(family, spec, seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state()), "the global generator was moved"
    x = _inputs(spec)
    assert torch.equal(first.eval()(x), again.eval()(x)), "one seed, two networks"
    assert not torch.equal(first.eval()(x), other.eval()(x)), "two seeds, one network"


def trains_every_parameter(family: Family, spec: NetSpec) -> None:
    """A gradient reaches every parameter."""
    net = build_seeded(family, spec, 0).train()
    net(_inputs(spec)).square().sum().backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle, f"no gradient for {', '.join(idle)}"


def is_traceable(family: Family, spec: NetSpec) -> None:
    """torch.fx traces it, for any batch size, and the graph computes the same."""
    net = build_seeded(family, spec, 0).eval()
    graph = fx.symbolic_trace(net)
    for batch in (1, _BATCH):
        x = _inputs(spec)[:batch]
        assert torch.equal(graph(x), net(x)), "the traced graph computes something else"


def is_exportable(family: Family, spec: NetSpec) -> None:
    """torch.export takes it with a free batch size."""
    net = build_seeded(family, spec, 0).eval()
    x = _inputs(spec)
    batch = torch.export.Dim("batch")
    program = torch.export.export(net, (x,), dynamic_shapes=({0: batch},))
    assert torch.allclose(program.module()(x[:2]), net(x[:2]), atol=1e-6), "export changed it"


def has_a_known_cost(family: Family, spec: NetSpec) -> None:
    """Every weight lies in a layer whose multiply-accumulates are counted."""
    cost = measure_cost(build_seeded(family, spec, 0), spec.input_shape)
    assert not cost.uncounted, f"no cost known for {', '.join(cost.uncounted)}"
    assert cost.macs > 0, "no multiply-accumulates at all"


def has_one_layer_per_place(family: Family, spec: NetSpec) -> None:
    """No layer runs twice in a pass: each place needs its own ranges when it becomes integer."""
    net = build_seeded(family, spec, 0).eval()
    runs: dict[str, int] = {}

    def counter(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_layer: nn.Module, _inputs: object, _output: Tensor) -> None:
            runs[name] = runs.get(name, 0) + 1

        return hook

    for name, layer in net.named_modules(remove_duplicate=True):
        layer.register_forward_hook(counter(name))
    net(_inputs(spec))
    twice = [name for name, count in runs.items() if count > 1]
    assert not twice, f"these layers run more than once: {', '.join(twice)}"


#: every check; each takes a family and a spec and raises AssertionError with a text
CHECKS: tuple[Callable[[Family, NetSpec], None], ...] = (
    gives_logits,
    is_initialised_by_the_seed,
    trains_every_parameter,
    is_traceable,
    is_exportable,
    has_a_known_cost,
    has_one_layer_per_place,
)


def _inputs(spec: NetSpec) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(_BATCH, *spec.input_shape, generator=draw)

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.core.config import validate
from edgekd.core.errors import DataError, RecipeError, UnsupportedError
from edgekd.core.types import Affine, Codebook, PerBlock, QuantizedStudent, Scheme
from edgekd.quantize import store
from edgekd.quantize.convert import QuantizationAware, simulate, taps
from edgekd.quantize.fold import fold_batch_norms, trace
from edgekd.quantize.placement import place
from edgekd.quantize.settings import QuantizeSettings
from tests.quantize.nets import INPUT_SHAPE, NETS, trained_looking

SCHEME = Scheme(activations="uint8", bias="int32")


def samples(count: int = 96, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, *INPUT_SHAPE)).astype(np.float32)


def aware(net: nn.Module, *, learned: bool = False, **fields: object) -> QuantizationAware:
    settings = QuantizeSettings(**fields)  # type: ignore[arg-type]
    return QuantizationAware(net, settings, SCHEME, samples(), learned=learned, seed=0)


@pytest.mark.parametrize("name", NETS)
def test_folding_changes_nothing(name: str) -> None:
    net = trained_looking(name)
    graph = fold_batch_norms(trace(net))
    inputs = torch.from_numpy(samples())
    with torch.no_grad():
        # float32 sums in another order
        assert torch.allclose(graph(inputs), net(inputs), atol=1e-5)
    kinds = {type(layer) for layer in graph.modules()}
    assert not kinds & {nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout}


class Shared(nn.Module):
    """One convolution called twice, with a batch norm of its own behind each call, or the same."""

    def __init__(self, *, same: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.first = nn.BatchNorm2d(1)
        self.second = self.first if same else nn.BatchNorm2d(1)
        self.head = nn.Linear(256, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.conv(torch.relu(self.first(self.conv(x)))))
        out: torch.Tensor = self.head(x.flatten(1))
        return out


@pytest.mark.parametrize("same", [True, False])
def test_a_layer_that_is_called_twice_keeps_its_weights(same: bool) -> None:
    net = Shared(same=same).eval()
    net.first.running_var.fill_(0.25)  # type: ignore[union-attr, operator]
    net.second.running_mean.fill_(0.5)  # type: ignore[union-attr, operator]
    inputs = torch.from_numpy(samples())
    student = aware(net).freeze()
    with torch.no_grad():
        assert torch.allclose(student.graph(inputs), net(inputs), atol=1e-5)
        error = simulate(student)(inputs) - net(inputs)
        assert error.std() < 0.05 * net(inputs).std()
    norms = {"first"} if same else {"first", "second"}
    assert student.skipped == {
        **dict.fromkeys(norms, "BatchNorm2d has no integer form here"),
        "conv": "called 2 times, and an integer layer has one input scale",
    }


def test_a_layer_that_is_called_twice_is_quantized_where_activations_stay_in_float() -> None:
    net = Shared(same=True).eval()
    student = aware(net, activation_bits="float").freeze()
    assert set(student.weights) == {"conv", "head"}


def test_folding_counts_the_epsilon_of_a_batch_norm() -> None:
    net = trained_looking("dense")
    net.norm.running_var.fill_(net.norm.eps)  # type: ignore[union-attr, operator, arg-type]
    inputs = torch.from_numpy(samples())
    with torch.no_grad():
        folded, wanted = fold_batch_norms(trace(net))(inputs), net(inputs)
    # without it the layer would give 1.4 times as much
    torch.testing.assert_close(folded, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("learned", [True, False])
def test_the_recipe_says_whether_zero_points_are_learned(learned: bool) -> None:
    work = aware(trained_looking("residual"), learned=True, learned_zero_points=learned)
    moved = [n for n, _ in work.module.named_parameters() if n.endswith("zero_shift")]
    assert ("x_grid.zero_shift" in moved) == learned


def test_folding_leaves_the_student_alone() -> None:
    net = trained_looking("residual")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    fold_batch_norms(trace(net))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_grids_stand_where_a_runtime_stores_integers() -> None:
    placement = place(fold_batch_norms(trace(trained_looking("residual"))))
    assert placement.weights == ("stem", "conv1", "conv2", "shortcut", "head")
    # not behind a convolution whose ReLU is fused; the pool's output lies on its input's grid
    assert placement.quantized == ("x", "relu", "relu_1", "conv2", "shortcut", "relu_2", "mean")
    assert placement.shared == {"pool": "relu_2"}
    assert placement.skipped == {}


def test_sizes_in_a_graph_are_no_tensors() -> None:
    placement = place(fold_batch_norms(trace(trained_looking("dense"))))
    assert placement.quantized == ("x", "relu")
    assert placement.shared == {"view": "x"}


def test_a_layer_kept_in_float_is_reported_with_the_reason() -> None:
    student = aware(trained_looking("residual"), keep_float=("head", "conv*")).freeze()
    assert student.skipped == {
        "conv1": "kept in float by the pattern 'conv*'",
        "conv2": "kept in float by the pattern 'conv*'",
        "head": "kept in float by the pattern 'head'",
    }
    assert set(student.weights) == {"stem", "shortcut"}
    assert "mean" not in student.activations  # nobody reads it as integers


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"the pattern 'fc' matches no layer[\s\S]*stem, conv1"):
        aware(trained_looking("residual"), keep_float=("fc",))


def test_a_student_without_integer_layers_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="No layer of the student can be quantized"):
        aware(nn.Sequential(nn.Flatten(), nn.ReLU()))


def test_a_layer_type_without_integers_is_skipped_with_its_name() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ConvTranspose2d(4, 4, 3), nn.Flatten())
    student = aware(net.eval()).freeze()
    assert student.skipped == {"1": "ConvTranspose2d has no integer form here"}


def test_control_flow_on_values_is_refused() -> None:
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedError, match="The student Branches cannot be traced"):
        trace(Branches())


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("learned", [False, True])
def test_what_is_frozen_computes_what_was_trained(name: str, learned: bool) -> None:
    work = aware(trained_looking(name), learned=learned)
    inputs = torch.from_numpy(samples(seed=2))
    optimizer = torch.optim.SGD(work.module.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        work.module(inputs).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        frozen = simulate(work.freeze())(inputs)
        trained = work.module.eval()(inputs)
    # the same codes; the only freedom is the last bit of a convolution's sum at a rounding edge
    assert (frozen - trained).abs().mean() < 1e-3 * trained.std()


def test_every_parameter_gets_a_gradient() -> None:
    work = aware(trained_looking("residual"), learned=True)
    work.module.train()(torch.from_numpy(samples())).square().sum().backward()
    assert not [n for n, p in work.module.named_parameters() if p.grad is None]


def test_quantization_costs_little_on_a_float_student() -> None:
    net = trained_looking("residual")
    inputs = torch.from_numpy(samples(256, seed=3))
    with torch.no_grad():
        error = simulate(aware(net).freeze())(inputs) - net(inputs)
        # eight bits: well below a tenth of the signal, or the ranges are wrong
        assert error.std() < 0.05 * net(inputs).std()


def test_a_channel_of_zeros_stays_zero() -> None:
    net = trained_looking("residual")
    with torch.no_grad():
        net.conv1.weight[3] = 0.0  # type: ignore[union-attr, index, operator]
    student = aware(net).freeze()
    layer = simulate(student).get_submodule("conv1")
    assert torch.count_nonzero(layer.weight[3]) == 0  # type: ignore[index, arg-type]


def test_calibration_refuses_what_is_not_finite() -> None:
    net = trained_looking("dense")
    with torch.no_grad():
        net.hidden.weight[0, 0] = float("nan")  # type: ignore[union-attr, index, operator]
    with pytest.raises(DataError, match=r"The activation '.*' is not finite on calibration data"):
        aware(net)


def test_a_calibration_set_of_one_image_works() -> None:
    net = trained_looking("residual")
    one = QuantizationAware(net, QuantizeSettings(), SCHEME, samples(1), learned=False, seed=0)
    assert one.freeze().activations


def test_taps_come_in_execution_order() -> None:
    student = aware(trained_looking("residual")).freeze()
    seen = taps(simulate(student), torch.from_numpy(samples(4)))
    assert list(seen)[:3] == ["x", "relu", "relu_1"]
    assert seen["pool"].shape == (4, 16, 4, 4)


def test_a_student_survives_the_disk(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "q.safetensors"
    net = trained_looking("residual")
    student = aware(net, keep_float=("head",)).freeze()
    store.save(student, path)
    back = store.load(path, fold_batch_norms(trace(NETS["residual"]())))
    inputs = torch.from_numpy(samples(8))
    with torch.no_grad():
        assert torch.equal(simulate(student)(inputs), simulate(back)(inputs))
    assert back.skipped == student.skipped


def test_a_damaged_file_is_refused(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "q.safetensors"
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(DataError, match="does not hold a quantized student of this recipe"):
        store.load(path, fold_batch_norms(trace(NETS["residual"]())))


def test_a_file_of_another_net_is_refused(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "q.safetensors"
    store.save(aware(trained_looking("dense")).freeze(), path)
    with pytest.raises(DataError, match="does not hold a quantized student of this recipe"):
        store.load(path, fold_batch_norms(trace(NETS["residual"]())))


def test_the_quantizer_is_built_from_the_recipe() -> None:
    settings = validate(
        QuantizeSettings, {"weights": {"name": "minmax", "bits": 4}}, source="recipe"
    )
    assert settings.weights.bits == 4
    with pytest.raises(RecipeError, match=r"weights\.bits: Input should be less than or equal"):
        validate(QuantizeSettings, {"weights": {"name": "minmax", "bits": 9}}, source="recipe")
    with pytest.raises(RecipeError, match=r"No quantizer named 'minmx'. Did you mean 'minmax'"):
        validate(QuantizeSettings, {"weights": "minmx"}, source="recipe")


def test_freezing_keeps_what_skipped_layers_learned() -> None:
    work = aware(trained_looking("residual"), keep_float=("head",))
    with torch.no_grad():
        work.module.get_submodule("head").weight.fill_(0.25)  # type: ignore[union-attr, operator]
    student: QuantizedStudent = work.freeze()
    assert torch.all(student.graph.get_submodule("head").weight == 0.25)  # type: ignore[arg-type]


@pytest.mark.parametrize("granularity", [{"kind": "per_block", "size": 50}, None])
def test_weights_alone_are_quantized_where_activations_stay_in_float(
    granularity: dict[str, object] | None,
) -> None:
    work = aware(trained_looking("residual"), activation_bits="float", granularity=granularity)
    student = work.freeze()
    assert not student.activations
    assert set(student.weights) == set(work.placement.weights)
    kind = "per_channel" if granularity is None else "per_block"
    assert {e.granularity.kind for e in student.weights.values()} == {kind}
    inputs = torch.from_numpy(samples())
    with torch.no_grad():
        trained, stored = work.module.eval()(inputs), simulate(student)(inputs)
    assert torch.allclose(trained, stored, atol=1e-5)


def test_a_rule_may_choose_blocks_for_one_layer() -> None:
    rule = {"layers": "last", "weights": "mse", "granularity": {"kind": "per_block", "size": 32}}
    student = aware(trained_looking("residual"), rules=[rule]).freeze()
    kinds = {path: e.granularity.kind for path, e in student.weights.items()}
    assert kinds.pop("head") == "per_block"
    assert set(kinds.values()) == {"per_channel"}


def test_every_kind_of_encoding_comes_back_from_disk(tmp_path: Path) -> None:
    student = aware(trained_looking("residual")).freeze()
    blocks = np.arange(1, 4, dtype=np.float32)
    grid = Affine(2, False, PerBlock(size=64), blocks, np.zeros(3, np.int32), offset=-blocks)
    points = np.linspace(0, 1, 4, dtype=np.float32)
    book = Codebook(2, PerBlock(size=64), points, blocks, None)
    first, second, *_ = student.weights
    student = replace(student, weights={**student.weights, first: grid, second: book})
    store.save(student, tmp_path / "student.safetensors")
    graph = fold_batch_norms(trace(NETS["residual"]()))
    back = store.load(tmp_path / "student.safetensors", graph)
    for path, encoding in student.weights.items():
        found = back.weights[path]
        assert type(found) is type(encoding)
        for field in fields(encoding):
            one, other = getattr(encoding, field.name), getattr(found, field.name)
            assert np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other

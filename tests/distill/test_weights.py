from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from edgekd.core.errors import DataError
from edgekd.distill import weights
from edgekd.distill.weights import fill, load_weights, save_weights

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.steps": torch.tensor(7)}
METADATA = {"role": "teacher", "seed": "3", "arm": "control", "z": "1"}


def refused(path: Path) -> str:
    with pytest.raises(DataError) as error:
        load_weights(path)
    return str(error.value)


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, STATE, METADATA)
    assert equal(load_weights(path), STATE)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        save_weights(tmp_path / f"{name}.safetensors", STATE, METADATA)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    backwards = dict(reversed(list(METADATA.items())))
    save_weights(tmp_path / "b.safetensors", dict(reversed(list(STATE.items()))), backwards)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_tensors_that_share_memory_or_are_views_are_saved(tmp_path: Path) -> None:
    base = nn.Parameter(torch.arange(12.0).reshape(3, 4))
    state = {"a": base, "b": base, "t": base.t(), "row": base[1], "empty": torch.zeros(0, 3)}
    path = tmp_path / "w.safetensors"
    save_weights(path, state, {})
    found = load_weights(path)
    assert equal(found, {name: t.detach() for name, t in state.items()})
    assert found["a"].data_ptr() != found["b"].data_ptr()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])
def test_files_of_torch(suffix: str, wrapper: str | None, legacy: bool, tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in STATE.items()}
    path = tmp_path / f"w{suffix}"
    value = {wrapper: state, "best": 0.5, "epoch": 3} if wrapper else state
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    assert equal(load_weights(path), STATE)


def test_a_layer_called_module_keeps_its_name(tmp_path: Path) -> None:
    state = {"module.a": torch.zeros(1), "head": torch.ones(1)}
    save_weights(tmp_path / "w.safetensors", state, {})
    assert equal(load_weights(tmp_path / "w.safetensors"), state)


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(legacy: bool, tmp_path: Path) -> None:
    path, mark = tmp_path / "w.pt", tmp_path / "ran"
    value = {"a": torch.zeros(1), "b": Trap(mark)}
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    text = refused(path)
    assert not mark.exists()
    assert f"{path} is not weights: it is a pickle that could run code when loaded." in text
    assert "expected: tensors only, which weights_only=True accepts" in text
    assert "got:      it asks for " in text
    assert "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')" in text
    assert "weights_only=False" not in text
    assert "weights_only` set to" not in text


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    text = refused(tmp_path / "w.pt")
    assert "could run code" in text
    assert "got:      it asks for torch.nn.modules.linear.Linear\n" in text


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    # what `pickle.dumps({}, protocol=4)` and `protocol=2` of an object give
    for content in (b"\x80\x04}\x94.", b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R."):
        (tmp_path / "w.pkl.pt").write_bytes(content)
        assert "could run code when loaded" in refused(tmp_path / "w.pkl.pt")


def _cut(path: Path, keep: int) -> Path:
    path.write_bytes(path.read_bytes()[:keep])
    return path


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
def test_a_cut_off_file_of_torch(legacy: bool, keep: float, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(STATE, path, _use_new_zipfile_serialization=not legacy)
    text = refused(_cut(path, int(keep * path.stat().st_size)))
    assert "cannot be read: the file is cut off, damaged or something else." in text or (
        keep < 0.5 and "could run code" in text  # not even the format can be told any more
    )


@pytest.mark.parametrize("keep", [5, 60, -1])
def test_a_cut_off_safetensors_file(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, STATE, {})
    text = refused(_cut(path, keep))
    assert f"The weights {path} cannot be read: the file is cut off" in text
    assert "expected: a complete safetensors file" in text


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"hello world" * 20, bytes(range(256)), b"<html>" * 50])
def test_something_else(suffix: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / f"w{suffix}").write_bytes(content)
    assert "is cut off, damaged or something else." in refused(tmp_path / f"w{suffix}")


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert "is cut off, damaged or something else." in refused(tmp_path / "w.pt")


def test_missing_empty_and_misnamed_files(tmp_path: Path) -> None:
    assert "There are no weights at " in refused(tmp_path / "none.pt")
    assert "got:      no such file" in refused(tmp_path / "none.pt")
    assert "got:      a folder" in refused(tmp_path)
    (tmp_path / "w.pt").touch()
    assert f"The weights file {tmp_path / 'w.pt'} is empty." in refused(tmp_path / "w.pt")
    (tmp_path / "w.txt").write_text("x")
    text = refused(tmp_path / "w.txt")
    assert "does not end like a weights file.\n  expected: .safetensors, .pt, .pth" in text
    assert "got:      .txt" in text


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ({}, "no tensors at all"),
        ({"state_dict": {}}, "no tensors at all"),
        ([torch.ones(1)], "a list"),
        (torch.ones(1), "a Tensor"),
        ({"epoch": 3, "best": [1], "w": torch.ones(1)}, "epoch (int), best (list)"),
        ({i: torch.ones(1) for i in range(6)},
         "0 (Tensor), 1 (Tensor), 2 (Tensor), 3 (Tensor) and 2 more"),
    ],
)  # fmt: skip
def test_what_is_no_state_dict(value: Any, got: str, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "w.pt")
    text = refused(tmp_path / "w.pt")
    assert "are not tensors by name.\n  expected: a state_dict, bare or under one of" in text
    assert f"got:      {got}\n  to do:    save model.state_dict()" in text


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite(bad: float, tmp_path: Path) -> None:
    torch.save({"a": torch.tensor([1, bad], dtype=torch.bfloat16)}, tmp_path / "w.pt")
    assert "are not usable: 'a' holds NaN or infinity." in refused(tmp_path / "w.pt")


def test_files_that_are_or_unpack_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "MAX_WEIGHTS_BYTES", 1 << 16)
    (tmp_path / "w.safetensors").write_bytes(save({"a": torch.zeros(1 << 15)}))
    assert "are too large.\n  expected: at most 65536 bytes" in refused(tmp_path / "w.safetensors")
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", bytes(1 << 20))
    assert (tmp_path / "w.pt").stat().st_size < 1 << 16
    assert "got:      1048576 bytes" in refused(tmp_path / "w.pt")


def test_fill_puts_every_weight_in_place() -> None:
    net, other = nn.Linear(3, 2), nn.Linear(3, 2)
    fill(net, other.state_dict(), source="w.pt")
    assert torch.equal(net.weight, other.weight)


def test_fill_needs_no_step_counters_of_batch_norm() -> None:
    net, state = nn.BatchNorm1d(2), nn.BatchNorm1d(2).state_dict()
    del state["num_batches_tracked"]
    state["running_mean"] += 3
    fill(net, state, source="old.pt")
    assert net.running_mean is not None
    assert net.running_mean.tolist() == [3, 3]
    assert net.num_batches_tracked == 0


def test_fill_lists_what_does_not_fit() -> None:
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)), nn.Linear(2, 5))
    before = {name: t.clone() for name, t in net.state_dict().items()}
    state = {"3.weight": torch.ones(4, 2), "3.bias": torch.ones(5), "x": torch.ones(1)}
    with pytest.raises(DataError) as error:
        fill(net, state, source="w.pt")
    assert str(error.value) == (
        "The weights w.pt are not those of Sequential.\n"
        "  expected: its 8 tensors\n"
        "  got:      missing: 0.weight, 0.bias, 1.weight, 1.bias and 2 more\n"
        "            unexpected: x\n"
        "            of another shape: 3.weight (4, 2) for (5, 2)\n"
        "  to do:    check that architecture, its arguments and the file belong together"
    )
    assert equal(dict(net.state_dict()), before)


# ------------------------------------------------------------------ weights that others trained
class _Block(nn.Module):
    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.stride = width // width_in
        self.conv1 = nn.Conv2d(width_in, width, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride == 2:  # option A of arXiv:1512.03385: subsample, pad channels with zeros
            quarter = x.shape[1] // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
        return F.relu(out + x)


class _CifarResNet(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [(16, 16), (16, 32), (32, 64)]
        for i, (a, b) in enumerate(widths, 1):
            parts = [_Block(a, b), *(_Block(b, b) for _ in range(blocks - 1))]
            setattr(self, f"layer{i}", nn.Sequential(*parts))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


@pytest.mark.shared
@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_published_weights_load_and_fit(depth: int, shared_data: Path) -> None:
    folder = shared_data / "weights" / "akamaster" / "pretrained_models"
    (path,) = folder.glob(f"resnet{depth}-*.th")
    net = _CifarResNet(depth)
    fill(net, load_weights(path), source=path.name)
    assert net.linear.weight.std() > 0.2  # a trained head; PyTorch starts below 1/sqrt(64)


@pytest.mark.shared
def test_published_weights_score_as_published(shared_data: Path) -> None:
    folder = shared_data / "weights" / "akamaster" / "pretrained_models"
    (path,) = folder.glob("resnet20-*.th")
    net = _CifarResNet(20).eval()
    fill(net, load_weights(path), source=path.name)
    data = np.load(shared_data / "cifar10" / "cifar10_lossless_3000train_932test.npz")
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    images = (data["test_images"].astype(np.float32) / 255 - mean) / std
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        right = (net(inputs).argmax(1).numpy() == data["test_labels"]).sum()
    # 91.6 % of 932 by the data's own SOURCE.md; one sample either way for another order of sums
    assert abs(right - 854) <= 1

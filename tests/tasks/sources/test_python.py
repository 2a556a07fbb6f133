from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from edgekd.core.errors import DataError, MissingDependencyError, RecipeError
from edgekd.tasks.sources.python import Python

HEAD = """
import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset

X = torch.arange(60 * 12).reshape(60, 1, 4, 3)
Y = torch.arange(60) % 3
"""


def write(folder: Path, body: str, module: str = "my_data") -> None:
    (folder / f"{module}.py").write_text(HEAD + dedent(body))


def load(folder: Path, factory: str = "my_data:build", **settings: object):
    return Python(factory=factory, **settings).load(folder)


def message(folder: Path, body: str, **settings: object) -> str:
    write(folder, body)
    with pytest.raises(DataError) as error:
        load(folder, **settings)
    return str(error.value)


def test_a_dataset_is_cut_in_three(tmp_path: Path) -> None:
    write(tmp_path, "def build(scale): return TensorDataset(X * scale, Y)")
    before = list(sys.path)
    data = load(tmp_path, kwargs={"scale": 0.5}, classes=["a", "b", "c"])
    assert sys.path == before
    assert data.classes == ("a", "b", "c")
    assert data.input_shape == (1, 4, 3)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [36, 12, 12]
    # used as it is: sample i holds 12 numbers from 12 * i * 0.5 on
    first = data.test.batch(np.arange(12))[:, 0, 0, 0] / 6
    assert (first % 3).tolist() == data.test.labels.tolist()


def test_a_mapping_gives_the_splits(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        def build():
            return {"train": TensorDataset(X[:40], Y[:40]), "test": TensorDataset(X[40:], Y[40:])}
    """,
    )
    data = load(tmp_path, validation=10)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [30, 10, 20]


def test_bytes_are_kept_as_bytes_and_divided_by_255(tmp_path: Path) -> None:
    write(
        tmp_path, "def build(): return [(np.full((2, 2), 51 + i, 'u1'), i % 2) for i in range(20)]"
    )
    data = load(tmp_path)
    assert data.train.values.dtype == np.uint8
    assert data.train.batch(np.array([0])).min() >= np.float32(0.2)


def test_items_may_be_tensors_of_any_kind(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        class Mine(Dataset):
            def __len__(self): return 30
            def __getitem__(self, i):
                x = torch.full((3,), float(i), dtype=torch.bfloat16, requires_grad=True)
                return x, torch.tensor([i % 3])
        build = Mine
    """,
    )
    assert load(tmp_path).input_shape == (3,)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("def build(): return 3",
         "my_data:build did not return a data set.\n"
         "  expected: a Dataset with __len__ and __getitem__, or a mapping of train and test\n"
         "  got:      int"),
        ("def build(): return {'train': [], 'tests': []}",
         "returned a mapping with other keys than splits.\n"
         "  expected: train, test and possibly validation\n  got:      train, tests"),
        ("def build(): return {'train': [], 'test': 5}", "returned no data set for test."),
        ("def build(): return []", "my_data:build is empty."),
        ("def build(): return [1, 2]", "Sample 0 of my_data:build is not a pair."),
        ("def build(): return [('a', 1)]",
         "The input of sample 0 of my_data:build is not numbers.\n"
         "  expected: a tensor or an array, uint8 or float\n  got:      str"),
        ("def build(): return [(X[0], 1.5)]",
         "The label of sample 0 of my_data:build is not a whole number.\n"
         "  expected: one class index that starts at 0\n  got:      1.5"),
        ("def build(): return [(X[0], Y[:2])]", "got:      tensor([0, 1])"),
        ("def build(): return [(X[0], 0), (X[1, 0], 1)]",
         "Sample 1 of my_data:build differs in shape or type from sample 0.\n"
         "  expected: shape (1, 4, 3), int64\n  got:      shape (4, 3), int64"),
        ("def build(): return [(X[i] / (i - 7), i % 2) for i in range(20)]",
         "my_data:build holds a value that is not a finite number.\n"
         "  expected: finite numbers that fit into float32\n  got:      infinity in sample 7"),
        ("def build(): return TensorDataset(X, Y - 1)", "got:      -1 at sample 0, and 19 more"),
        ("class build(Dataset):\n  def __len__(self): return 3\n"
         "  def __getitem__(self, i): raise OSError(f'no file {i}.png')",
         "Sample 0 of my_data:build cannot be read.\n"
         "  got:      OSError: no file 0.png (my_data.py, line 10)"),
        ("def build(): return [(np.zeros(1 << 20), 0)] * 40",
         "my_data:build is larger than this source may read into memory.\n"
         "  expected: at most 50 MiB\n  got:      160 MiB"),
    ],
)  # fmt: skip
def test_what_is_no_data_set(body: str, text: str, tmp_path: Path) -> None:
    assert text in message(tmp_path, body, max_mib=50)


def test_a_factory_that_cannot_be_called(tmp_path: Path) -> None:
    write(tmp_path, "def build(): return 1 / 0\nnumber = 3")
    with pytest.raises(RecipeError) as error:
        load(tmp_path)
    assert str(error.value) == (
        "data.factory: 'my_data:build' failed when it was called to make the data set.\n"
        "  got:      ZeroDivisionError: division by zero (my_data.py, line 8)\n"
        "  to do:    call it yourself in Python with {} to see the traceback"
    )
    with pytest.raises(RecipeError, match=r"data.factory: 'my_data:number' cannot be called"):
        load(tmp_path, "my_data:number")


def test_a_package_that_is_not_installed(tmp_path: Path) -> None:
    write(tmp_path, "import no_such_package_anywhere\ndef build(): ...")
    with pytest.raises(MissingDependencyError) as error:
        load(tmp_path)
    assert "data.factory: the module 'my_data' needs the package" in str(error.value)

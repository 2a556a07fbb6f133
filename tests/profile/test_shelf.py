from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.core.errors import DataError, RunFolderError
from edgekd.core.target import shipped_folder, target_names
from edgekd.profile.shelf import INDEX, keep, kept
from tests.profile.test_store import profile


def shelf(tmp_path: Path) -> Path:
    keep(profile((10, 20)), tmp_path, title="A first model.onnx")
    keep(profile((30, 40)), tmp_path, title="A first model.onnx")
    return tmp_path


def test_what_is_kept_comes_back_in_order(tmp_path: Path) -> None:
    first, second = kept(shelf(tmp_path))
    assert first.profile.samples_ns == (10, 20)
    assert second.profile.samples_ns == (30, 40)
    assert first.file.endswith("/0000-a-first-model-onnx.json")
    assert first.title == "A first model.onnx"


@pytest.mark.parametrize("source", ["predicted", "simulated"])
def test_only_measured_profiles_are_kept(tmp_path: Path, source: str) -> None:
    with pytest.raises(DataError, match="Only measured profiles are kept"):
        keep(profile((1, 2)).model_copy(update={"source": source}), tmp_path, title="x")
    assert not list(tmp_path.iterdir())


def test_an_edited_file_is_refused_and_so_is_adding_to_it(tmp_path: Path) -> None:
    first = shelf(tmp_path) / kept(tmp_path)[0].file
    first.write_text(first.read_text().replace("10", "9"))
    with pytest.raises(DataError, match="is not what was kept there"):
        kept(tmp_path)
    with pytest.raises(DataError, match="is not what was kept there"):
        keep(profile((5, 6)), tmp_path, title="x")


def test_a_lost_file_a_stray_one_and_a_damaged_index_are_refused(tmp_path: Path) -> None:
    first = shelf(tmp_path) / kept(tmp_path)[0].file
    text = first.read_text()
    first.unlink()
    with pytest.raises(DataError, match="got:      no file"):
        kept(tmp_path)
    first.write_text(text)
    stray = first.with_name("by-hand.json")
    stray.write_text(text)
    with pytest.raises(DataError, match="the index does not know it"):
        kept(tmp_path)
    stray.unlink()
    index = tmp_path / INDEX
    index.write_text(index.read_text().replace("A first", "B first"))
    with pytest.raises(RunFolderError, match="damaged at line 1"):
        kept(tmp_path)


def test_the_shipped_shelf_is_whole_measured_and_of_shipped_targets() -> None:
    found = kept(shipped_folder("profiles"))
    assert found, "the built-in devices have results"
    assert {one.profile.target for one in found} <= set(target_names())
    assert all(min(one.profile.samples_ns) > 0 for one in found)

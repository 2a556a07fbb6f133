from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.errors import DataError, RecipeError, RunFolderError, UnsupportedError
from edgekd.core.types import Conditions, Profile
from edgekd.profile.percentiles import coefficient_of_variation, percentiles
from edgekd.profile.store import compare, read_profile, write_profile

CONDITIONS = Conditions(
    batch_size=1,
    threads=1,
    warm_up="-",
    duration="-",
    clock="perf_counter_ns",
    power_mode="as found",
    interleaved_with=1,
    inputs="real test samples",
)


def profile(samples: tuple[int, ...] = (1_000_000,) * 700, **changes: Any) -> Profile:
    fields: dict[str, Any] = {
        "artifact_sha256": "ab" * 32,
        "target": "here",
        "conditions": CONDITIONS,
        "samples_ns": samples,
        "environment": {"machine": {"cpu": "x"}},
        "source": "measured",
    }
    return Profile(**{**fields, **changes})


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=50))
def test_a_profile_survives_the_disk(tmp_path_factory, samples: list[int]) -> None:
    path = tmp_path_factory.mktemp("p") / "one.json"
    written = profile(tuple(samples))
    write_profile(written, path)
    assert read_profile(path) == written


def test_the_samples_stay_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    write_profile(profile(), path)
    lines = path.read_text().splitlines()
    assert len(lines) < 40
    assert json.loads(path.read_text())["schema_version"] == 1


def test_the_first_version_is_read_for_ever(repo_root: Path) -> None:
    """The file of every version ever written stays in tests/data."""
    read = read_profile(repo_root / "tests/data/profile-1.json", measured_only=True)
    assert (read.target, len(read.samples_ns)) == ("x86-onnxruntime-fp32", 64)
    assert percentiles(read).p90.certified == pytest.approx(0.006349)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("not json", "is not a profile"),
        ("[1]", "is not a profile that this edgekd reads"),
        ('{"schema_version": 2}', "schema_version 2"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        read_profile(path)
    assert text in caught.value.message
    assert str(path) in caught.value.failed


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no profile .*x\.json"):
        read_profile(tmp_path / "x.json")


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_profile(profile(), path)
    plain = json.loads(path.read_text())
    del plain["conditions"]["threads"]
    path.write_text(json.dumps(plain))
    with pytest.raises(RecipeError, match=r"conditions\.threads: is required"):
        read_profile(path)


@pytest.mark.parametrize("samples", [(), (5, 0), (5, -3)])
def test_impossible_samples_are_refused(tmp_path: Path, samples: tuple[int, ...]) -> None:
    path = tmp_path / "x.json"
    write_profile(profile(samples), path)
    with pytest.raises(DataError, match="samples that no clock can have given"):
        read_profile(path)


@pytest.mark.parametrize("source", ["predicted", "simulated"])
def test_only_measured_figures_count_as_measured(tmp_path: Path, source: str) -> None:
    path = tmp_path / "x.json"
    write_profile(profile(source=source), path)
    assert read_profile(path).source == source
    with pytest.raises(DataError, match="was not measured") as caught:
        read_profile(path, measured_only=True)
    assert (caught.value.expected, caught.value.got) == ("source: measured", source)


def test_a_folder_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot be written to"):
        write_profile(profile(), tmp_path / "file" / "x.json")


def test_comparing_gives_ratios_of_certified_percentiles() -> None:
    found = compare(profile((4_000_000,) * 64), profile((1_000_000,) * 64))
    assert (found.speedup_p50, found.speedup_p90) == (4.0, 4.0)
    few = compare(profile((4_000_000,) * 63), profile((1_000_000,) * 64))
    assert (few.speedup_p50, few.speedup_p90) == (4.0, None)


@pytest.mark.parametrize("field", sorted(Conditions.model_fields))
def test_other_conditions_do_not_compare(field: str) -> None:
    old = getattr(CONDITIONS, field)
    other = CONDITIONS.model_copy(update={field: old + 1 if isinstance(old, int) else "other"})
    with pytest.raises(UnsupportedError, match="under different conditions") as caught:
        compare(profile(), profile(conditions=other))
    assert caught.value.expected == f"{field}: {old}"
    assert caught.value.got == f"{field}: {getattr(other, field)}"
    assert "interleaved" in caught.value.todo


def test_measured_and_predicted_do_not_compare() -> None:
    with pytest.raises(UnsupportedError, match="cannot be compared"):
        compare(profile(), profile(source="predicted"))


def test_percentiles_are_in_milliseconds_and_refused_with_the_number_needed() -> None:
    found = percentiles(profile(tuple(range(1_000_000, 1_000_100))))
    assert found.p90.certified == 1.000096  # the 97th of 100, by the published table
    assert found.p90.empirical == 1.000089
    assert (found.p90.n, found.p90.reason) == (100, None)
    assert found.p99.certified is None
    assert found.p99.empirical == 1.000098
    assert found.p99.reason == "needs 662 samples"
    assert found.p95.reason == "needs 130 samples"


def test_percentiles_of_very_few_samples_are_all_refused() -> None:
    found = percentiles(profile((5,)))
    assert [getattr(found, p).reason for p in ("p50", "p90")] == [
        "needs 11 samples",
        "needs 64 samples",
    ]
    assert found.p50.empirical is None


def test_coefficient_of_variation() -> None:
    assert coefficient_of_variation(profile((1, 3))) == 0.5
    assert coefficient_of_variation(profile((7, 7, 7))) == 0.0

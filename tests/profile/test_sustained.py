from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.core.errors import UnsupportedError
from edgekd.core.progress import Silent
from edgekd.profile.agent.endurance import temperature_c
from edgekd.profile.agent.energy import CountedFile
from edgekd.profile.measure import measure
from edgekd.profile.store import compare
from edgekd.profile.sustained import onset, sustain
from tests.profile.test_measure import QUICK, subjects


def test_every_run_is_kept_and_lies_in_a_window() -> None:
    (subject,) = subjects([], a=2e-4)
    run = sustain(subject, 0.6, inputs="real test samples", progress=Silent(), counters=[])
    assert len(run.windows) == 60
    assert sum(window.runs for window in run.windows) == len(run.profile.samples_ns)
    assert min(run.profile.samples_ns) >= 2e5
    assert sum(run.profile.samples_ns) / 1e9 == pytest.approx(0.6, rel=0.5)
    assert run.profile.source == "measured"
    assert run.energy == ()


def test_a_long_run_never_compares_with_a_burst() -> None:
    (subject,) = subjects([], a=1e-4)
    (burst,) = measure([subject], QUICK, inputs="same", progress=Silent())
    run = sustain(subject, 0.1, inputs="same", progress=Silent(), counters=[])
    with pytest.raises(UnsupportedError, match="under different conditions"):
        compare(burst, run.profile)


def test_a_run_slower_than_its_window_fills_every_window_all_the_same() -> None:
    (subject,) = subjects([], a=5e-3)
    run = sustain(subject, 0.06, inputs="", progress=Silent(), counters=[])
    assert [window.runs for window in run.windows] == [1] * 60


def test_energy_is_shared_out_over_the_runs(tmp_path: Path) -> None:
    path = tmp_path / "energy_uj"
    path.write_text("0")
    (subject,) = subjects([], a=1e-4)
    call = subject.session.bind(subject.feeds[0])

    class Spending(type(subject.session)):  # type: ignore[misc]
        def bind(self, feeds):
            def spend() -> None:
                call()
                path.write_text(str(int(path.read_text()) + 3_000))

            return spend

    session = Spending("a", [], 1e-4)
    subject = type(subject)("a", session, subject.feeds, "a", subject.target)
    counters = [CountedFile("meter", path, 1e-6)]
    run = sustain(subject, 0.1, inputs="", progress=Silent(), counters=counters)
    (energy,) = run.energy
    assert energy.per_inference_mj == pytest.approx(3)
    assert energy.joules == pytest.approx(0.003 * len(run.profile.samples_ns))


@pytest.mark.parametrize(
    ("medians", "index"),
    [
        ([1, 1, 1, 1.05, 1.09, 1.0], None),
        ([1, 1, 1, 1.2, 1.2, 1.2], 3),
        ([1, 1, 1, 1.2, 1.2], None),  # two windows are not lasting
        ([1, 1, 1, 2, 1, 1.2, 1.3, 1.4], 5),  # an earlier burst by a neighbour is not heat
        ([1, 2], None),
    ],
)
def test_onset(medians: list[float], index: int | None) -> None:
    assert onset(medians) == index


def test_the_hottest_zone_counts(tmp_path: Path) -> None:
    assert temperature_c(tmp_path) is None
    for zone, text in enumerate(["41000", "72500", "broken"]):
        folder = tmp_path / f"class/thermal/thermal_zone{zone}"
        folder.mkdir(parents=True)
        (folder / "temp").write_text(text)
    assert temperature_c(tmp_path) == 72.5

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.errors import RunFolderError
from edgekd.core.ledger import Ledger

EVENTS = [
    ("run_started", {"recipe": "digits", "note": "ä\nb"}),
    ("stage_done", {"name": "teacher", "key": "aa", "files": {"w": "00"}, "score": 0.5}),
    ("stage_done", {"name": "student", "key": "bb", "files": {}, "score": None}),
]


def filled(path: Path) -> Ledger:
    ledger = Ledger(path)
    for event, fields in EVENTS:
        ledger.append(event, **fields)
    return ledger


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    written = filled(tmp_path / "run" / "ledger.jsonl")
    read = Ledger(written.path)
    assert read.events == written.events == [{"event": e, **f} for e, f in EVENTS]


def test_the_line_format_stays_readable_by_older_versions(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    ledger.append("stage_done", name="a", score=0.5)
    body = b'{"event":"stage_done","name":"a","score":0.5}'
    expected = hashlib.sha256(body).hexdigest()[:16].encode() + b" " + body + b"\n"
    assert ledger.path.read_bytes() == expected


def test_an_appended_record_equals_the_one_read_back(tmp_path: Path) -> None:
    record = Ledger(tmp_path / "l").append("stage_done", shape=(1, 2), by_class={3: 0.5})
    assert record == Ledger(tmp_path / "l").events[0]
    assert record["shape"] == [1, 2]


def test_last_is_the_newest_that_matches(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "l")
    assert ledger.last("stage_done") == {"event": "stage_done", **EVENTS[2][1]}
    assert ledger.last("stage_done", name="teacher", files={"w": "00"}) == {
        "event": "stage_done",
        **EVENTS[1][1],
    }
    assert ledger.last("stage_done", name="nobody") is None
    assert ledger.last("stage_done", unknown=None) is None


def test_a_cut_at_any_byte_leaves_a_prefix_that_the_next_append_repairs(tmp_path: Path) -> None:
    whole = filled(tmp_path / "whole").path.read_bytes()
    records = Ledger(tmp_path / "whole").events
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    path = tmp_path / "cut"
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        survivors = records[: sum(end <= size for end in ends)]
        ledger = Ledger(path)
        assert ledger.events == survivors
        ledger.append("after", cut_at=size)
        assert Ledger(path).events == [*survivors, {"event": "after", "cut_at": size}]


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_flipped_byte_is_never_read_as_truth(
    position: int, flip: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "l"
    original = filled(path).events
    raw = bytearray(path.read_bytes())
    position %= len(raw)
    raw[position] ^= flip
    path.write_bytes(raw)
    if position == len(raw) - 1:  # the last newline: the same as a kill one byte before the end
        assert Ledger(path).events == original[:-1]
    else:
        with pytest.raises(RunFolderError, match="is damaged at line"):
            Ledger(path)


def test_a_damaged_line_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = filled(tmp_path / "l").path
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b"0.5", b"0.9") + lines[2])
    with pytest.raises(RunFolderError) as caught:
        Ledger(path)
    assert caught.value.failed == f"{path} is damaged at line 2."
    assert caught.value.expected == "a line whose checksum fits"
    assert '"score":0.9' in caught.value.got or "stage_done" in caught.value.got
    assert caught.value.todo == "move the run folder away and start again"


def test_a_second_writer_is_refused_and_loses_nothing(tmp_path: Path) -> None:
    first = filled(tmp_path / "l")
    second = Ledger(first.path)
    second.append("from_second")
    with pytest.raises(RunFolderError, match="was changed by another process") as caught:
        first.append("from_first")
    assert "one edgekd at a time" in caught.value.todo
    assert [e["event"] for e in Ledger(first.path).events][-1] == "from_second"


WRITER = """
import sys
from pathlib import Path
from edgekd.core.errors import RunFolderError
from edgekd.core.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
try:
    for i in range(200):
        ledger.append("tick", writer=sys.argv[2], i=i)
except RunFolderError as e:
    print(e.failed)
"""


def test_writers_at_the_same_time_never_damage_the_file(tmp_path: Path) -> None:
    path = tmp_path / "l"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "abc"
    ]
    for writer in writers:  # all have read the same file before the first one writes
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    outputs = [writer.communicate("go\n")[0] for writer in writers]
    assert [w.returncode for w in writers] == [0, 0, 0]
    assert sum("was changed by another process" in out for out in outputs) == 2
    events = Ledger(path).events  # raises if a line is damaged
    for name in "abc":
        own = [e["i"] for e in events if e["writer"] == name]
        assert own == list(range(len(own)))
    assert len(events) == 200  # exactly one of them got through


def test_nan_is_refused_before_a_byte_is_written(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "l")
    before = ledger.path.read_bytes()
    with pytest.raises(ValueError, match="Out of range float"):
        ledger.append("stage_done", score=float("nan"))
    assert ledger.path.read_bytes() == before
    ledger.append("still_works")


def test_a_full_disk_leaves_the_file_as_it_was(mounted: Callable[[str], Path]) -> None:
    disk = mounted("size=64k")
    ledger = filled(disk / "l")
    before = ledger.path.read_bytes()
    with pytest.raises(RunFolderError, match="The disk is full") as caught:
        ledger.append("too_much", text="x" * 100_000)
    assert "free some space and call the same command" in caught.value.todo
    assert ledger.path.read_bytes() == before
    ledger.append("fits")
    assert Ledger(ledger.path).events[-1] == {"event": "fits"}


def test_a_read_only_disk_is_explained(mounted: Callable[[str], Path]) -> None:
    disk = mounted("size=64k")
    ledger = filled(disk / "l")
    mounted("remount,ro")
    with pytest.raises(RunFolderError) as caught:
        ledger.append("late")
    assert caught.value.failed == f"The folder of {ledger.path} cannot be written to."
    assert caught.value.got == "Read-only file system"


def test_a_folder_in_the_place_of_the_ledger_is_explained(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"cannot be read\.\n  got:      Is a directory"):
        Ledger(tmp_path)

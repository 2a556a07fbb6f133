from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from edgekd.cli._console import RichProgress, duration, stderr, stdout


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def plain() -> tuple[RichProgress, io.StringIO, Clock]:
    out, clock = io.StringIO(), Clock()
    return RichProgress(Console(file=out, width=80), clock), out, clock


def terminal() -> tuple[RichProgress, io.StringIO, Clock]:
    out, clock = io.StringIO(), Clock()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    return RichProgress(console, clock), out, clock


def test_without_a_terminal_a_bar_is_two_lines() -> None:
    progress, out, clock = plain()
    with progress, progress.bar("train teacher", total=3) as bar:
        for _ in range(3):
            clock.now_s += 1
            bar.advance(note="loss 0.1")
    assert out.getvalue() == "train teacher: 0/3\ntrain teacher: done in 3.0 s (loss 0.1)\n"


def test_without_a_terminal_a_long_bar_speaks_every_ten_seconds() -> None:
    progress, out, clock = plain()
    with progress.bar("train", total=120, done=20) as bar:
        for _ in range(100):
            clock.now_s += 0.3
            bar.advance()
    assert out.getvalue().splitlines() == [
        "train: 20/120",
        "train: 54/120, 10 s, about 20 s left",
        "train: 88/120, 20 s, about 9.6 s left",
        "train: done in 30 s",
    ]


def test_an_interrupted_bar_says_where_it_stopped() -> None:
    progress, out, clock = plain()

    def work() -> None:
        with progress.bar("train", total=10) as bar:
            bar.advance(4)
            clock.now_s += 75
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert out.getvalue().splitlines()[-1] == "train: stopped at 4/10 after 1 min 15 s"


def test_a_bar_of_no_steps_is_fine() -> None:
    progress, out, _ = plain()
    with progress.bar("nothing", total=0):
        pass
    assert out.getvalue() == "nothing: 0/0\nnothing: done in 0.0 s\n"


def test_names_cannot_write_markup_or_control_characters() -> None:
    progress, out, _ = plain()
    with progress.bar("[red]a\x1b[31m\r", total=1) as bar:
        bar.advance(note="[bold]\x07")
    progress.say("[link=x]b\nc\x1b]0;title\x07")
    text = out.getvalue()
    assert "[red]a [31m" in text
    assert "[link=x]b c ]0;title" in text
    assert {c for c in text if not c.isprintable()} == {"\n"}


def test_long_lines_are_not_wrapped_outside_a_terminal() -> None:
    progress, out, _ = plain()
    progress.say("x" * 300)
    assert out.getvalue() == "x" * 300 + "\n"


def test_on_a_terminal_a_finished_bar_leaves_one_line() -> None:
    progress, out, clock = terminal()
    with progress:
        with progress.bar("[red]outer", total=2) as outer:
            with progress.bar("inner", total=2) as inner:
                clock.now_s += 1
                inner.advance(2, note="loss [1]")
            progress.say("between")
            outer.advance(2)
        progress.say("after")
    screen = emulate(out.getvalue())
    assert screen == [
        "inner: done in 1.0 s (loss [1])",
        "between",
        "[red]outer: done in 1.0 s",
        "after",
    ]
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h") == 1


def emulate(text: str) -> list[str]:
    """What a terminal shows in the end: carriage return, cursor up and erase line are enough."""
    rows, row, column, i = [""], 0, 0, 0
    while i < len(text):
        if text[i] == "\x1b":
            end = next(k for k in range(i + 2, len(text)) if text[k].isalpha())
            body, kind = text[i + 2 : end], text[end]
            if kind == "A":
                row -= int(body or 1)
            elif kind == "K":
                rows[row] = "" if body == "2" else rows[row][:column]
            i = end
        elif text[i] == "\r":
            column = 0
        elif text[i] == "\n":
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        else:
            rows[row] = rows[row][:column].ljust(column) + text[i] + rows[row][column + 1 :]
            column += 1
        i += 1
    return [r.rstrip() for r in rows if r.strip()]


def test_a_bar_on_a_terminal_shows_steps_and_note() -> None:
    progress, out, clock = terminal()
    with progress.bar("train", total=4) as bar:
        clock.now_s += 1
        bar.advance(2, note="loss 0.5")
        shown = emulate(out.getvalue())[-1]
    assert shown.startswith("train")
    assert "2/4" in shown
    assert "0:00:01" in shown
    assert "loss 0.5" in shown


def test_a_terminal_is_redrawn_ten_times_a_second_at_most() -> None:
    progress, out, clock = terminal()
    with progress.bar("train", total=10_000) as bar:
        before = len(out.getvalue())
        for _ in range(1000):
            clock.now_s += 0.0001
            bar.advance()
        drawn = len(out.getvalue()) - before
    assert drawn < 3 * 200  # a drawn line is at most 200 characters long


def test_no_thread_runs_beside_an_open_bar() -> None:
    # it would take the interpreter's lock while an inference is being timed
    progress, _, _ = terminal()
    before = threading.active_count()
    with progress.bar("measure", total=10) as bar:
        bar.advance()
        assert threading.active_count() == before


def test_an_error_on_a_terminal_gives_the_cursor_back() -> None:
    progress, out, _ = terminal()

    def work() -> None:
        with progress.bar("train", total=10):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("\x1b[?25l")


def test_results_and_messages_go_their_own_ways(capsys: pytest.CaptureFixture[str]) -> None:
    stdout().print("result", markup=False)
    stderr().print("message", markup=False)
    assert capsys.readouterr() == ("result\n", "message\n")


def test_a_pipe_gets_wide_tables(capsys: pytest.CaptureFixture[str]) -> None:
    stdout().print("x" * 120)
    assert capsys.readouterr().out == "x" * 120 + "\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (3720, "1 h 02 min"),
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text

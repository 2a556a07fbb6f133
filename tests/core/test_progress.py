from __future__ import annotations

import pytest

from edgekd.core.progress import Progress, Silent


def test_silence_is_a_progress_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress: Progress = Silent()
    with progress.bar("train", total=3, done=1) as bar:
        bar.advance()
        bar.advance(2, note="loss 0.1")
    progress.say("hello")
    assert capsys.readouterr() == ("", "")


def test_an_error_inside_a_silent_bar_passes() -> None:
    with pytest.raises(ZeroDivisionError), Silent().bar("train", total=3):
        raise ZeroDivisionError

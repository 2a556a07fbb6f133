"""Ctrl-C at any moment of a command: one line, 130, no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys

SLEEPER = """
import sys, time, typer
from edgekd.cli import main
app = typer.Typer()
app.callback()(lambda: None)
@app.command()
def work():
    print("working", flush=True)
    time.sleep(60)
main.app = app
main.main()
"""


def test_ctrl_c_ends_the_process_with_130_and_no_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER, "work"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err == "interrupted; call the same command to continue\n"


IN_A_DESTRUCTOR = """
import sys, time, typer
from edgekd.cli import main

class Slow:
    def __del__(self):
        print("working", flush=True)
        time.sleep(60)

app = typer.Typer()
app.callback()(lambda: None)
@app.command()
def work():
    thing = Slow()
    del thing
    time.sleep(60)
main.app = app
main.main()
"""


def test_ctrl_c_inside_a_destructor_is_not_lost() -> None:
    # Python drops what a destructor raises, so the command would go on as if nothing had been
    with subprocess.Popen(
        [sys.executable, "-c", IN_A_DESTRUCTOR, "work"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err == "interrupted; call the same command to continue\n"


TAKEN_FOR_ANOTHER = """
import signal, typer
from edgekd.cli import main
app = typer.Typer()
app.callback()(lambda: None)
@app.command()
def work():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:  # as imports inside compiled code do
        raise ImportError("cannot import x", name="onnxruntime") from None
main.app = app
assert main.run(["work"]) == 130
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def test_ctrl_c_that_a_library_takes_for_another_error_is_still_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TAKEN_FOR_ANOTHER], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "interrupted; call the same command to continue\n"


AGAIN_AT_EXIT = """
import atexit, os, signal, typer
from edgekd.cli import main
atexit.register(os.kill, os.getpid(), signal.SIGINT)
app = typer.Typer()
app.callback()(lambda: None)
@app.command()
def work():
    raise KeyboardInterrupt
main.app = app
main.main()
"""


def test_a_second_ctrl_c_on_the_way_out_shows_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AGAIN_AT_EXIT, "work"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "interrupted; call the same command to continue\n"


WHILE_LOADING = """
import sys
class Interrupted:
    def find_spec(self, name, *_):
        if name == "edgekd.cli.doctor":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
from edgekd.__main__ import main
main()
"""


def test_ctrl_c_while_the_commands_load_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WHILE_LOADING], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")

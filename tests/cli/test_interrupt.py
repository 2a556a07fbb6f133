"""Ctrl-C at any moment of a command: one line, 130, no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
from textwrap import indent

ONE_LINE = "interrupted; call the same command to continue\n"
#: edgekd with one command of the test's own in place of its commands
PROGRAM = """
import atexit, os, signal, time, typer
from edgekd.cli import main
app = typer.Typer()
app.callback()(lambda: None)
@app.command()
def work():
{work}
main.app = app
{call}
"""


def command(work: str, call: str = "main.main()") -> list[str]:
    program = PROGRAM.format(work=indent(work, "    "), call=call)
    return [sys.executable, "-c", program, "work"]


def check_ctrl_c_ends(command: list[str]) -> None:
    """Interrupts it when it has said that it is working."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", ONE_LINE)


def check_ends(command: list[str], code: int, line: str = ONE_LINE) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", line)


def test_ctrl_c_ends_the_process_with_130_and_no_traceback() -> None:
    check_ctrl_c_ends(command('print("working", flush=True)\ntime.sleep(60)'))


IN_A_DESTRUCTOR = """
class Slow:
    def __del__(self):
        print("working", flush=True)
        time.sleep(60)

thing = Slow()
del thing
time.sleep(60)
"""


def test_ctrl_c_inside_a_destructor_is_not_lost() -> None:
    # Python drops what a destructor raises, so the command would go on as if nothing had been
    check_ctrl_c_ends(command(IN_A_DESTRUCTOR))


TAKEN_FOR_ANOTHER = """
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:  # as imports inside compiled code do
    raise ImportError("cannot import x", name="onnxruntime") from None
"""
AND_THE_HANDLER_IS_BACK = """
assert main.run(["work"]) == 130
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def test_ctrl_c_that_a_library_takes_for_another_error_is_still_one() -> None:
    check_ends(command(TAKEN_FOR_ANOTHER, AND_THE_HANDLER_IS_BACK), 0)


def test_a_second_ctrl_c_on_the_way_out_shows_nothing() -> None:
    again = "atexit.register(os.kill, os.getpid(), signal.SIGINT)"
    check_ends(command("raise KeyboardInterrupt", f"{again}\nmain.main()"), 130)


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
    check_ends([sys.executable, "-c", WHILE_LOADING], 130, "interrupted\n")

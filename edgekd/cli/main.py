"""The command line: mounts one command per file, and turns every error into words and a code."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from edgekd import __version__
from edgekd.cli._interrupt import Interrupts
from edgekd.cli.build import build
from edgekd.cli.compress import compress
from edgekd.cli.device import device
from edgekd.cli.doctor import doctor
from edgekd.cli.drift import drift
from edgekd.cli.explain import explain
from edgekd.cli.init import init
from edgekd.cli.list import list_plugins
from edgekd.cli.profile import profile
from edgekd.cli.quantize import quantize
from edgekd.core.errors import (
    INTERNAL_EXIT_CODE,
    DeviceError,
    EdgekdError,
    MissingDependencyError,
    RecipeError,
    RunFolderError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as a shell has it
PIPE_CLOSED_EXIT_CODE = 141  # 128 + SIGPIPE

#: typer's base of every complaint about a command line; not public under one name in all versions
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="edgekd",
    help="Distil, quantize, export and prove small models against a device and a budget.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help as plain text opens twice as fast
    context_settings={"help_option_names": ["-h", "--help"]},
)
# short texts of their own where the first sentence of the long one would be cut
app.command(short_help="Teacher, data, target and budget in; a proven model out.")(compress)
app.command()(init)
app.command(short_help="Time any ONNX file and count its int8 kernels.")(profile)
app.command(short_help="Post-training int8 of any ONNX file, with proof.")(quantize)
app.command(short_help="Compare two models layer by layer: why is one not faster?")(explain)
app.command(short_help="The same file under two versions of a runtime.")(drift)
app.command(short_help="Before any training: what this machine's runtimes can do.")(doctor)
app.command(short_help="Make what a target loads, also for a GPU that is not here.")(build)
app.command("list")(list_plugins)
app.add_typer(device, name="device", short_help="Devices of your own: add, list, check, learn.")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"edgekd {__version__}")
        raise typer.Exit


@app.callback(
    epilog=f"Exit codes: 0 met, 1 budget missed, 2 recipe or usage, 3 missing package, "
    f"4 unsupported, 5 parity, 6 device, 7 inconclusive, {INTERNAL_EXIT_CODE} a bug."
)
def _global_options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print it and exit."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and edgekd's own debug messages.")
    ] = False,
) -> None:
    import logging

    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    if debug:
        logging.getLogger("edgekd").setLevel(logging.DEBUG)


def main() -> NoReturn:
    """Entry point of the `edgekd` command."""
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # a second one, while the first was told
        code = INTERRUPTED_EXIT_CODE
    if code == INTERRUPTED_EXIT_CODE:
        # from here on one more only speeds the end up: no traceback, the same code
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED_EXIT_CODE))
    sys.exit(code)


def run(args: Sequence[str]) -> int:
    """Run one command line; returns its exit code and never raises."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a narrow encoding is no reason to fail
    interrupts = Interrupts()
    try:
        with interrupts:
            code = app(args=list(args) or ["--help"], prog_name="edgekd", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as e:
        return _pipe_closed(e)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED_EXIT_CODE
    except Exception as e:
        if not interrupts.came:
            return _explain(e, args)
        code = INTERRUPTED_EXIT_CODE
    if code == INTERRUPTED_EXIT_CODE:
        print("interrupted; call the same command to continue", file=sys.stderr)
    return code or 0


def _pipe_closed(error: BaseException) -> int:
    """Whoever read our output has gone (`| head`): say nothing, also not at exit."""
    if not isinstance(error, BrokenPipeError) and not isinstance(
        error.__context__, BrokenPipeError
    ):
        raise error
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    return PIPE_CLOSED_EXIT_CODE


def _explain(error: Exception, args: Sequence[str]) -> int:
    """Print the error in its four parts on stderr, as JSON on stdout too where that was asked."""
    if "--debug" in args:
        import traceback

        traceback.print_exception(error)
    known = _as_edgekd_error(error)
    print(known.message, file=sys.stderr)
    if "--json" in args:
        parts = {
            "type": type(known).__name__,
            "failed": known.failed,
            "expected": known.expected,
            "got": known.got,
            "todo": known.todo,
        }
        print(json.dumps({"error": parts, "exit_code": known.exit_code}))
    return known.exit_code


def _as_edgekd_error(error: Exception) -> EdgekdError:
    if isinstance(error, EdgekdError):
        return error
    if isinstance(error, _UsageError):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "edgekd"
        return RecipeError(str(error), todo=f"see `{command} --help`")
    if isinstance(error, ImportError) and MissingDependencyError.is_about_others(error):
        return MissingDependencyError.from_import_error(error, user="This command")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunFolderError("The disk is full.", got=str(error), todo="free some space")
    if isinstance(error, MemoryError):
        return DeviceError(
            "This machine ran out of memory.",
            got=str(error),
            todo="try a smaller batch_size, or close other programs",
        )
    return EdgekdError(
        "This is a bug in edgekd.",
        got=f"{type(error).__name__}: {error}",
        todo="call it again as `edgekd --debug …` and report what that prints",
    )

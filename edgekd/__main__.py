"""Starts the command line, as `edgekd` and `python -m edgekd`."""

from __future__ import annotations

import sys
from typing import NoReturn

_INTERRUPTED = 130


def main() -> NoReturn:
    """Load the commands and run one; Ctrl-C while they load is no traceback either."""
    try:
        from edgekd.cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(_INTERRUPTED)
    run()


if __name__ == "__main__":
    main()

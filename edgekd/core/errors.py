"""The one tree of errors, each with its exit code.

::

    EdgekdError
      BudgetError             a budget or gate is not met                     exit 1
      RecipeError             the recipe, its data or the command line        exit 2
        UnknownPluginError    a name nobody registered                        exit 2
        DataError             the user's data or weights are not usable       exit 2
        RunFolderError        the run folder is locked, read-only or full     exit 2
      MissingDependencyError  an optional package is not installed            exit 3
      UnsupportedError        the target or the runtime cannot do this        exit 4
      ParityError             an exported file computes something else        exit 5
      DeviceError             the device is out of reach, out of memory, slow exit 6
      InconclusiveError       too noisy or too few samples to say             exit 7

Anything else that reaches the command line is our own bug and exits with 70.
"""

from __future__ import annotations

from typing import ClassVar

INTERNAL_EXIT_CODE = 70

#: what pip calls a package whose import name differs
_DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "ai_edge_litert": "'edgekd[litert]'",
    "executorch": "'edgekd[executorch]'",
    "tensorrt_rtx": "'edgekd[tensorrt-rtx]'",
}


class EdgekdError(Exception):
    """Base of every error a user can meet.

    Args:
        failed: What failed, naming the file, field or layer.
        expected: What would have been right.
        got: What was there instead.
        todo: What the user can do about it.
    """

    exit_code: ClassVar[int] = INTERNAL_EXIT_CODE

    def __init__(self, failed: str, *, expected: str = "", got: str = "", todo: str = "") -> None:
        self.failed, self.expected, self.got, self.todo = failed, expected, got, todo
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The four parts, one a line; empty parts are left out."""
        parts = [self.failed]
        if self.expected:
            parts.append(f"  expected: {self.expected}")
        if self.got:
            parts.append(f"  got:      {self.got}")
        if self.todo:
            parts.append(f"  to do:    {self.todo}")
        return "\n".join(parts)


class BudgetError(EdgekdError):
    """A budget or gate is not met."""

    exit_code = 1


class RecipeError(EdgekdError):
    """The recipe, its data or the command line is wrong."""

    exit_code = 2


class UnknownPluginError(RecipeError):
    """A name that no plugin of its kind carries."""


class DataError(RecipeError):
    """The user's data or weights are not usable."""


class RunFolderError(RecipeError):
    """The run folder is locked by another run, read-only or on a full disk."""


class MissingDependencyError(EdgekdError):
    """An optional package is not installed."""

    exit_code = 3

    @classmethod
    def from_import_error(cls, error: ImportError, *, user: str) -> MissingDependencyError:
        """Explain a failed import of a package that is not edgekd's own.

        Args:
            error: What Python raised.
            user: What needs the package, e.g. "The backend 'openvino'".
        """
        package = (error.name or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError):
            return cls(
                f"{user} needs the package {package!r}, which is not installed.",
                todo=f"pip install {_DISTRIBUTIONS.get(package, package)}",
            )
        return cls(
            f"{user} needs a package that is installed but cannot be imported.",
            got=str(error),
            todo=f"install {package or 'it'} again, in a version for this Python and machine",
        )

    @staticmethod
    def is_about_others(error: ImportError) -> bool:
        """Whether the module that is missing is not edgekd's own, which would be our bug."""
        return (error.name or "").partition(".")[0] != "edgekd"


class UnsupportedError(EdgekdError):
    """The target or the runtime cannot do what was asked."""

    exit_code = 4


class ParityError(EdgekdError):
    """An exported file computes something else than the model it came from."""

    exit_code = 5


class DeviceError(EdgekdError):
    """The device is not reachable, timed out or ran out of memory."""

    exit_code = 6


class InconclusiveError(EdgekdError):
    """Too noisy, or too few samples, to say anything."""

    exit_code = 7

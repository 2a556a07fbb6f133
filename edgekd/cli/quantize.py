"""`edgekd quantize`: post-training int8 of an ONNX file from anywhere, with proof."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEFAULT_TARGET = "x86-onnxruntime-int8"


def quantize(
    model: Annotated[Path, typer.Argument(help="A float ONNX file, from anywhere.")],
    data: Annotated[
        str,
        typer.Option(
            help="Real samples to calibrate and compare on: an .npz with one array per input, an "
            ".npy, or a folder of .npy. The word random takes random ones, and says so."
        ),
    ],
    target: Annotated[str, typer.Option(help="Where it shall run in int8.")] = _DEFAULT_TARGET,
    out: Annotated[
        Path | None, typer.Option(help="The int8 file; ./<model>.int8.onnx by default.")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, max=100_000, help="To calibrate on, at most.")
    ] = 128,
    ranges: Annotated[
        Literal["minmax", "percentile", "mse"],
        typer.Option(help="How the ranges of activations are read off the samples."),
    ] = "mse",
    weight_bits: Annotated[
        int,
        typer.Option(
            min=2,
            max=8,
            help="Most that codes of weights have; OpenVINO gets 7 where a CPU would overflow.",
        ),
    ] = 8,
    keep_float: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Layers that stay in float: a name, a wildcard, re:…, first, last, depthwise.",
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=1x3x320x320", help="Size of an input left open; for random data."
        ),
    ] = None,
    class_axis: Annotated[
        list[str] | None,
        typer.Option(metavar="OUTPUT=AXIS", help="Where an output's largest value is a decision."),
    ] = None,
    min_snr: Annotated[
        float | None,
        typer.Option(metavar="DB", help="Exit 5 if an output is further from float than this."),
    ] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Exit 5 if fewer decisions are equal; 0.99 is 99 %."),
    ] = None,
    percentile: Annotated[
        int, typer.Option(help="Highest percentile to certify: 90 needs 64 runs, 99 needs 662.")
    ] = 90,
    min_duration: Annotated[float, typer.Option(help="Timed seconds of each, at least.")] = 1.0,
    max_duration: Annotated[float, typer.Option(help="Timed seconds of each, at most.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Quantize a float ONNX file, compare it with the original, count its kernels and time both.

    Layers that stay in float are named with their reason. Nothing is claimed about accuracy from
    random data.
    """
    import json

    from rich.text import Text

    from edgekd.cli._console import RichProgress, stderr, stdout
    from edgekd.cli._quantized import as_plain, parts
    from edgekd.core.config import validate
    from edgekd.core.errors import ParityError
    from edgekd.core.target import load_target
    from edgekd.profile.inputs import parse_shapes
    from edgekd.profile.measure import MeasureRule
    from edgekd.steps.integer_file import QuantizeOptions
    from edgekd.steps.quantize_file import quantize_file

    rule = validate(
        MeasureRule,
        {
            "percentile": percentile,
            "min_duration_s": min_duration,
            "max_duration_s": max_duration,
        },
        source="the command line",
    )
    options = QuantizeOptions(
        samples=samples,
        ranges=ranges,
        weight_bits=weight_bits,
        keep_float=tuple(keep_float or ()),
        shapes=parse_shapes(shape or []),
        class_axis=axes(class_axis or []),
        min_snr_db=min_snr,
        min_agreement=min_agreement,
    )
    place = onnx_path(out or Path(f"{model.stem}.int8.onnx"), model)
    with RichProgress() as progress:
        found = quantize_file(model, data, load_target(target), place, options, rule, progress)
    if as_json:
        print(json.dumps(as_plain(found), indent=2, allow_nan=False))
    else:
        console = stdout()
        for part in parts(found):
            # a sentence in a pipe stays one line
            console.print(part, soft_wrap=isinstance(part, Text))
    for failure in found.failures:
        stderr().print(f"parity: {failure}", markup=False, soft_wrap=True)
    raise typer.Exit(ParityError.exit_code if found.failures else 0)


def onnx_path(out: Path, model: Path) -> Path:
    """Where the artifact goes.

    Raises:
        RecipeError: Not an .onnx, or the float file itself.
    """
    from edgekd.core.errors import RecipeError

    if out.suffix != ".onnx":
        raise RecipeError(f"--out {out} is no .onnx.", expected="a path that ends in .onnx")
    if out.resolve() == model.resolve():
        raise RecipeError(
            f"--out {out} is the float model itself.", todo="give the int8 file another name"
        )
    return out


def axes(texts: Sequence[str]) -> dict[str, int]:
    """``["scores=2"]`` -> ``{"scores": 2}``.

    Raises:
        RecipeError: A text is not of that form, or names an output twice.
    """
    from edgekd.core.errors import RecipeError

    found: dict[str, int] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        digits = number.removeprefix("-")
        if not name or not (digits.isdecimal() and digits.isascii()):
            raise RecipeError(
                f"--class-axis {text} is not an axis.", expected="--class-axis output=2", got=text
            )
        if name in found:
            raise RecipeError(f"--class-axis gives {name!r} twice.")
        found[name] = int(number)
    return found

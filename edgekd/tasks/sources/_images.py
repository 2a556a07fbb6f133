"""Reading single image files: one guarded way to open, check and decode them."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from edgekd.core.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

#: formats whose decoders are self-contained (others, such as EPS, start outside programs)
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".pgm", ".ppm")
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


@dataclass(frozen=True, slots=True)
class Decoding:
    """How files become arrays.

    Attributes:
        mode: Pillow's "L" (grey, 1 channel) or "RGB" (3 channels).
        size: (height, width) that every image is resized to; None to leave it.
        max_pixels: Larger images are refused before they are decoded.
    """

    mode: str
    size: tuple[int, int] | None
    max_pixels: int


def inspect(path: Path, decoding: Decoding) -> tuple[str, tuple[int, int]]:
    """sha256 of a file and its (height, width), without decoding its pixels.

    Raises:
        DataError: It is no image, of an unsupported kind, or larger than allowed.
    """
    data = _read(path)
    with _open(path, data, decoding) as image:
        size = (image.height, image.width)
    return hashlib.sha256(data).hexdigest(), size


def decode(path: Path, decoding: Decoding) -> NDArray[np.uint8]:
    """Pixels of an image, shape (C, H, W).

    Raises:
        DataError: The file is missing, damaged, or not what `inspect` accepts.
    """
    with _open(path, _read(path), decoding) as image:
        try:
            pixels = image.convert(decoding.mode)
        except (OSError, ValueError, SyntaxError) as e:
            raise _damaged(path, str(e)) from e
    if decoding.size is not None and (pixels.height, pixels.width) != decoding.size:
        height, width = decoding.size
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    array = np.asarray(pixels, dtype=np.uint8)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise DataError(f"The image {path} cannot be read.", got=e.strerror or str(e)) from e


def _open(path: Path, data: bytes, decoding: Decoding) -> Image.Image:
    if not data:
        raise _damaged(path, "an empty file")
    try:
        with warnings.catch_warnings():
            # the size is checked below, against the recipe's own limit
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as e:
        raise _damaged(path, f"a file that is none of {', '.join(FORMATS)}") from e
    except Image.DecompressionBombError as e:
        raise _too_large(path, decoding, str(e)) from e
    except (OSError, ValueError, SyntaxError) as e:
        raise _damaged(path, str(e)) from e
    if image.width * image.height > decoding.max_pixels:
        raise _too_large(path, decoding, f"{image.width} x {image.height} pixels")
    if image.mode not in _EIGHT_BIT_MODES:
        raise DataError(
            f"The image {path} does not hold 8-bit pixels.",
            expected="8 bits per channel",
            got=f"Pillow's mode {image.mode!r}",
            todo="convert it; 16-bit data can be given as arrays instead",
        )
    return image


def _damaged(path: Path, got: str) -> DataError:
    return DataError(
        f"The image {path} is damaged or no image.",
        expected=f"a complete {', '.join(FORMATS)} file",
        got=got,
        todo="repair or remove the file",
    )


def _too_large(path: Path, decoding: Decoding, got: str) -> DataError:
    return DataError(
        f"The image {path} is too large to be decoded safely.",
        expected=f"at most {decoding.max_pixels} pixels",
        got=got,
        todo="resize it, or raise `max_pixels`",
    )

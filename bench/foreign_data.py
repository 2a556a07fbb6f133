"""Real inputs for the models of the shared data folder, and honest words for what they are."""

from __future__ import annotations

import random
import sys
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

Arrays = dict[str, NDArray[np.generic]]
Pixels = Callable[[NDArray[np.float32]], NDArray[np.float32]]
_RATE = 16_000
_SEED = 0


@dataclass(frozen=True)
class Prepared:
    """Arrays for an .npz, and what they are; `arrays` None where nothing real was found."""

    arrays: Arrays | None
    what: str


def images(
    shared: Path, name: str, size: tuple[int, int], pixels: Pixels, n: int, *, chw: bool = True
) -> Prepared:
    """CIFAR-10 photographs (exact, first of the test split) enlarged to (height, width)."""
    archive = np.load(shared / "cifar10" / "cifar10_lossless_3000train_932test.npz")
    made = []
    for image in archive["test_images"][:n]:
        large = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        values = pixels(np.asarray(large, np.float32))
        made.append(values.transpose(2, 0, 1) if chw else values)
    what = f"{n} CIFAR-10 photographs enlarged to {size[1]}x{size[0]}: not the model's own domain"
    return Prepared({name: np.stack(made).astype(np.float32)}, what)


def file_bytes(n: int) -> Prepared:
    """Files of this machine: the first and last 2,048 bytes each, 256 where there are none."""
    half, padding = 2048, 256
    roots = [Path(sys.base_prefix) / "lib", Path("/usr/share"), Path("/usr/bin"), Path("/etc")]
    found: dict[str, list[Path]] = {}
    for path in (p for root in roots for p in sorted(root.rglob("*"))):
        if path.is_file() and not path.is_symlink() and path.stat().st_size >= 2 * half:
            found.setdefault(path.suffix, []).append(path)
    rng = random.Random(_SEED)
    kinds = sorted(found, key=lambda suffix: (-len(found[suffix]), suffix))
    rows = []
    while len(rows) < n:  # one of each kind in turn, so that no kind outweighs the others
        for kind in kinds:
            if found[kind] and len(rows) < n:
                path = found[kind].pop(rng.randrange(len(found[kind])))
                try:
                    data = path.read_bytes().strip()
                except OSError:
                    continue
                row = np.full(2 * half, padding, np.int32)
                head, tail = data[:half], data[-half:]
                row[: len(head)] = np.frombuffer(head, np.uint8)
                row[2 * half - len(tail) :] = np.frombuffer(tail, np.uint8)
                rows.append(row)
    what = f"{n} files of the machine, {len(kinds)} suffixes: first and last {half} bytes"
    return Prepared({"bytes": np.stack(rows)}, what)


def sentences(shared: Path, n: int) -> Prepared:
    """Bytes of SST-2 sentences as tokens; the model's own weights are random."""
    length = 32
    lines = (shared / "sst2" / "dev.tsv").read_text().splitlines()[1:]
    texts = [t for line in lines if len(t := line.partition("\t")[0].encode()) >= length][:n]
    ids = np.stack([np.frombuffer(t[:length], np.uint8) for t in texts]).astype(np.int32)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), ids.shape)
    empty = {f"past_{i}": np.zeros((2, 1, 4, 0, 8), np.float32) for i in range(5)}
    what = f"bytes of {len(texts)} SST-2 sentences as tokens; the model's weights are random"
    arrays: Arrays = {"input_ids": ids, "position_ids": positions.copy()}
    return Prepared({**arrays, "attention_mask": np.ones_like(ids), **empty}, what)


def spoken(folder: Path) -> NDArray[np.float32] | None:
    """All .wav files of a folder at 16 kHz, mono, one after another; None without any."""
    from scipy.signal import resample_poly

    clips = []
    for path in sorted(folder.glob("*.wav")):
        with wave.open(str(path), "rb") as f:
            if f.getsampwidth() != 2:
                continue
            raw = np.frombuffer(f.readframes(f.getnframes()), np.int16)
            mono = raw.reshape(-1, f.getnchannels()).mean(axis=1) / 32768
            clips.append(resample_poly(mono, _RATE, f.getframerate()))
    return np.concatenate(clips).astype(np.float32) if clips else None


def speech_windows(model: Path, folder: Path, n: int) -> Prepared:
    """Windows of speech for the voice detector, with the state that it is in there."""
    heard = spoken(folder)
    if heard is None:
        return Prepared(None, f"random: no .wav files in {folder}")
    window, context = 512, 64
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    state, rate = np.zeros((2, 1, 128), np.float32), np.array(_RATE)
    inputs, states = [], []
    for start in range(context, min(len(heard) - window, n * window), window):
        piece = heard[None, start - context : start + window]
        inputs.append(piece)
        states.append(state)
        state = session.run(["stateN"], {"input": piece, "state": state, "sr": rate})[0]
    what = f"{len(inputs)} windows of the speech in {folder.name}, states from the float model"
    arrays: Arrays = {"input": np.concatenate(inputs), "state": np.concatenate(states)}
    return Prepared({**arrays, "sr": rate}, what)


def speech_spectra(model: Path, folder: Path, n: int) -> Prepared:
    """Magnitudes of speech for the noise remover, with the state that it is in there."""
    heard = spoken(folder)
    if heard is None:
        return Prepared(None, f"random: no .wav files in {folder}")
    block, shift = 512, 128
    noise = np.random.default_rng(_SEED).normal(0, 0.01, len(heard)).astype(np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    state = np.zeros((1, 2, 128, 2), np.float32)
    inputs, states = [], []
    for start in range(0, min(len(heard) - block, n * shift), shift):
        spectrum = np.abs(np.fft.rfft((heard + noise)[start : start + block]))
        magnitude = spectrum.astype(np.float32).reshape(1, 1, -1)
        inputs.append(magnitude)
        states.append(state)
        state = session.run(None, {"input_2": magnitude, "input_3": state})[1]
    what = (
        f"{len(inputs)} spectra of the speech in {folder.name} with added noise, states from the "
        "float model"
    )
    return Prepared({"input_2": np.concatenate(inputs), "input_3": np.concatenate(states)}, what)

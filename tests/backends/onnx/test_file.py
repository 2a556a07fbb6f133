from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgekd.backends._onnx.file import check, check_one_file, total_bytes
from edgekd.core.errors import DataError
from edgekd.testing.onnx_models import convolution_net, with_external_data

MODEL = convolution_net(quantized=False)


def refused(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        check(path)
    assert caught.value.exit_code == 2
    return caught.value


def test_a_whole_file_passes(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(MODEL)
    assert check(path).outputs == ["logits"]
    assert total_bytes(path) == len(MODEL)


def test_a_missing_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "no.onnx").failed == f"{tmp_path / 'no.onnx'} does not exist."


def test_a_folder_or_a_pipe_is_not_a_file(tmp_path: Path) -> None:
    assert refused(tmp_path).failed == f"{tmp_path} is not a file."
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    assert refused(pipe).failed == f"{pipe} is not a file."


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    error = refused(path)
    assert error.failed == f"{path} is empty."
    assert (error.expected, error.got) == ("a complete ONNX file", "0 bytes")
    assert error.todo == "export or download it again"


def test_a_cut_off_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(MODEL[:-40])
    error = refused(path)
    assert error.failed == f"{path} is cut off."
    assert error.got.startswith(f"{len(MODEL) - 40} bytes; ")
    assert error.got.endswith("bytes are missing at its end")


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04 an archive", b"<html>", b"\0" * 64, b"\xff" * 64]
)
def test_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    error = refused(path)
    assert error.failed in (f"{path} is not an ONNX file.", f"{path} is cut off.")
    assert error.got


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(MODEL)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)  # root may read everything
    error = refused(path)
    assert (error.failed, error.got) == (f"{path} cannot be read.", "Permission denied")


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/passwd", "a/../../secret.bin", r"C:\secret.bin", "\\x", ""]
)
def test_a_file_pointing_outside_its_folder(tmp_path: Path, location: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(9999))
    error = refused(with_external_data(MODEL, inner / "m.onnx", location=location))
    assert error.failed == (
        f"{inner / 'm.onnx'} points at a file outside its folder: {location!r}."
    )
    assert error.todo == "if you trust the model, copy its data files beside it"


def test_a_link_out_of_the_folder(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(9999))
    path = with_external_data(MODEL, inner / "m.onnx", location="w.bin")
    (inner / "w.bin").unlink()
    (inner / "w.bin").symlink_to(secret)
    assert "points at a file outside its folder: 'w.bin'" in refused(path).failed
    (inner / "w.bin").unlink()
    os.link(secret, inner / "w.bin")
    error = refused(path)
    assert "points at a file outside its folder: 'w.bin'" in error.failed
    assert error.got.endswith("is a hard link")


def test_data_beside_the_file_counts_into_its_size(tmp_path: Path) -> None:
    path = with_external_data(MODEL, tmp_path / "m.onnx", location="w.bin")
    assert check(path).externals[0].location == "w.bin"
    assert total_bytes(path) == path.stat().st_size + (tmp_path / "w.bin").stat().st_size


def test_missing_data_beside_the_file(tmp_path: Path) -> None:
    path = with_external_data(MODEL, tmp_path / "m.onnx", location="w.bin")
    (tmp_path / "w.bin").unlink()
    error = refused(path)
    assert error.failed == f"{path} keeps its weights in a file that is not there."
    assert error.expected == str(tmp_path / "w.bin")


def test_cut_off_data_beside_the_file(tmp_path: Path) -> None:
    path = with_external_data(MODEL, tmp_path / "m.onnx", location="w.bin")
    whole = (tmp_path / "w.bin").stat().st_size
    os.truncate(tmp_path / "w.bin", whole - 1)
    error = refused(path)
    assert error.failed == f"The data file 'w.bin' of {path} is cut off."
    assert (error.expected, error.got) == (f"at least {whole} bytes", f"{whole - 1} bytes")


def test_an_artifact_is_one_whole_file(tmp_path: Path) -> None:
    check_one_file(MODEL, tmp_path / "a.onnx")
    with pytest.raises(DataError, match=r"a\.onnx is empty"):
        check_one_file(b"", tmp_path / "a.onnx")
    split = with_external_data(MODEL, tmp_path / "m.onnx", location="w.bin")
    with pytest.raises(DataError, match=r"keeps weights in another file, 'w\.bin'"):
        check_one_file(split.read_bytes(), tmp_path / "a.onnx")


def test_what_a_runtime_compiled_is_whole_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(b"12345")
    assert total_bytes(path) == 5
    with pytest.raises(DataError, match="does not exist"):
        total_bytes(tmp_path / "other.tflite")

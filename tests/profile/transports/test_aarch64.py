"""The agent and an int8 file on ARM, emulated: what is computed there, and never how fast.

Needs `apt install qemu-user-static` and a network for Debian's and PyPI's arm64 packages. They are
kept in the folder that EDGEKD_AARCH64 names, or fetched anew without it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgekd.core.target import load_target
from edgekd.profile.agent.serve import BOOT
from edgekd.profile.transports._remote import RemoteDevice
from edgekd.profile.transports.local import LocalDevice
from edgekd.testing.onnx_models import convolution_net
from tests.profile.transports.conftest import Pipe, is_clean, load_on

#: Debian's Python and what its wheels are linked to
PACKAGES = (
    "libc6", "libgcc-s1", "libstdc++6", "libexpat1", "zlib1g", "libbz2-1.0", "libffi8", "liblzma5",
    "libssl3", "libuuid1", "libcrypt1", "libpython3.11-minimal", "libpython3.11-stdlib",
    "python3.11-minimal",
)  # fmt: skip
#: the runtime asks for the processor here; without it, it would read that of the host and crash
CPUINFO = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
WRAPPER = """\
#!/bin/sh
export PYTHONHOME={root}/usr PYTHONPATH={root}/site
exec qemu-aarch64-static -cpu cortex-a72 -L {root} -0 {root}/python \
{root}/usr/bin/python3.11 "$@"
"""


def fetch(*words: str, into: Path) -> None:
    done = subprocess.run(words, cwd=into, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{words[0]} cannot fetch arm64 packages here: {done.stderr.strip()[-200:]}")


def make(root: Path) -> None:
    """Unpack a small arm64 system with Python, numpy and ONNX Runtime."""
    for name in ("lists/partial", "cache/archives/partial", "debs", "wheels", "site", "proc"):
        (root / name).mkdir(parents=True, exist_ok=True)
    apt = [
        "apt-get", "-oAPT::Architecture=arm64", "-oAPT::Architectures=arm64",
        f"-oDir::State::Lists={root}/lists", f"-oDir::Cache={root}/cache",
        "-oDir::State::status=/dev/null", "-q",
    ]  # fmt: skip
    fetch(*apt, "update", into=root)
    fetch(*apt, "download", *PACKAGES, into=root / "debs")
    for deb in (root / "debs").glob("*.deb"):
        fetch("dpkg", "-x", str(deb), str(root), into=root)
    platforms = [w for p in ("2_27", "2_28") for w in ("--platform", f"manylinux_{p}_aarch64")]
    wheels = ["numpy", f"onnxruntime=={onnxruntime.__version__}"]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    fetch(*pip, "--python-version", "3.11", *platforms, *wheels, into=root / "wheels")
    for wheel in (root / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(root / "site")
    # here, natively: emulated, reading the sources anew takes most of every import
    compile_all = [sys.executable, "-m", "compileall", "-q", "site", "usr/lib/python3.11"]
    subprocess.run(compile_all, cwd=root, stdout=subprocess.DEVNULL, check=False)
    (root / "proc" / "cpuinfo").write_text(CPUINFO)
    (root / "python").write_text(WRAPPER.format(root=root))
    (root / "python").chmod(0o755)  # last: a root that has it is whole


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An aarch64 Python that runs on this machine."""
    for program in ("qemu-aarch64-static", "apt-get", "dpkg"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt install qemu-user-static, on Debian")
    given = os.environ.get("EDGEKD_AARCH64")
    root = Path(given).resolve() if given else tmp_path_factory.mktemp("aarch64")
    if not (root / "python").exists():
        make(root)
    return root / "python"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tolerance"), [("x86-onnxruntime-int8", 0.02), ("x86-onnxruntime-fp32", 1e-5)]
)
def test_outputs_on_arm_are_those_of_x86(
    name: str, tolerance: float, python: Path, device: Path, tmp_path: Path
) -> None:
    """In int8 within one step of the grid before the last layer, whose weights sum to 1."""
    path = tmp_path / "net.onnx"
    path.write_bytes(convolution_net(quantized=name.endswith("int8")))
    target = load_target(name)
    load = load_on(path, target)
    link = Pipe(str(device), (str(python), "-c", BOOT), timeout_s=500.0)
    with RemoteDevice(link, "qemu") as arm, LocalDevice() as here:
        assert arm.environment()["machine"]["architecture"] == "aarch64"
        assert arm.runtime(target) == here.runtime(target)
        for got, expected in zip(arm.run(load), here.run(load), strict=True):
            assert np.abs(got["logits"] - expected["logits"]).max() <= tolerance
        matmuls = [x.precision for x in arm.layers(load) if x.role == "matmul"]
    assert matmuls == ["int8" if name.endswith("int8") else "float32"] * 2
    assert is_clean(device)

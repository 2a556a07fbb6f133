"""The frozen values that flow between stages; every number carries its unit in its name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from edgekd.core.config import Config

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, numpy dtype and shape of a graph input or output; None = known at run time."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


# ---------------------------------------------------------------- granularity and encodings
class PerTensor(Config):
    """One scale for a whole tensor; scale shape ()."""

    kind: Literal["per_tensor"] = "per_tensor"


class PerChannel(Config):
    """One scale per index of `axis`; weight (O, I, …) and axis 0 -> scale (O,)."""

    kind: Literal["per_channel"] = "per_channel"
    axis: int = 0


class PerBlock(Config):
    """One scale per run of `size` weights in memory order; (O·I…) -> scale (ceil(n / size),).

    The last block of a weight that `size` does not divide is short.
    """

    kind: Literal["per_block"] = "per_block"
    size: Annotated[int, Field(ge=2)]


Granularity = Annotated[PerTensor | PerChannel | PerBlock, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """``real = (code - zero_point) * scale + offset``.

    Attributes:
        bits: Bits per code, 1 to 8.
        signed: Codes are two's complement; otherwise unsigned.
        granularity: Which weights share a scale.
        scale: float32, positive; shape as `granularity` says.
        zero_point: int32, in code units, same shape as `scale`.
        narrow: The most negative code is left out, so that the range is symmetric.
        offset: float32, same shape as `scale`, for grids that do not hold 0 (bucketed min-max);
            None for 0, the only one that integer kernels know.
    """

    bits: int
    signed: bool
    granularity: PerTensor | PerChannel | PerBlock
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    narrow: bool = False
    offset: NDArray[np.float32] | None = None

    @property
    def code_min(self) -> int:
        """Smallest code."""
        return (-(1 << (self.bits - 1)) + int(self.narrow)) if self.signed else 0

    @property
    def code_max(self) -> int:
        """Largest code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Codebook:
    """``real = centroids[code] * scale + offset``: points shared by the tensor, scaled by group.

    Attributes:
        bits: Bits per code, 1 to 8.
        granularity: Which weights share a scale and an offset.
        centroids: float32, ascending, at most ``2**bits`` of them.
        scale: float32, positive; shape as `granularity` says.
        offset: float32, same shape as `scale`; None for 0.
    """

    bits: int
    granularity: PerTensor | PerChannel | PerBlock
    centroids: NDArray[np.float32]
    scale: NDArray[np.float32]
    offset: NDArray[np.float32] | None = None


Encoding = Affine | Codebook


# ---------------------------------------------------------------- schemes, students, artifacts
_BYTE_BITS = 8
Bits = Annotated[int, Field(ge=1, le=_BYTE_BITS)]
_ALL_BITS = tuple(range(1, 9))


class Widths(Config):
    """Bits per weight that a target holds at their real size.

    Attributes:
        kernel: Those that run in int8 kernels, where a weight is an integer times one scale per
            output channel or per tensor.
        storage: Those that may be anything else (blocks, offsets, codebooks) and are decoded to
            float when the file is loaded.
    """

    kernel: tuple[Bits, ...] = _ALL_BITS
    storage: tuple[Bits, ...] = _ALL_BITS


class Holds(Config):
    """What a target holds, seen by running it; a test keeps it true.

    Attributes:
        activations: Bits of the tensors between layers; they may always be float.
        conv: Of convolutions.
        matmul: Of linear layers.
    """

    activations: tuple[Bits, ...] = (8,)
    conv: Widths = Widths()
    matmul: Widths = Widths()


class Scheme(Config):
    """How one target wants integers stored; part of a target file.

    Attributes:
        activations: uint8 (asymmetric) or int8 (symmetric, zero point 0).
        weights: Always signed, symmetric.
        weight_granularity: Scale per output channel or per tensor.
        bias: int32 behind a DequantizeLinear, or float32.
        weight_bits: Most that the codes of a weight may have.
        full_range_with: CPU features of which one must be there for codes of 8 bits. A CPU with
            none of them adds pairs of products in 16 bits, which such codes overflow, so that the
            file would compute something else there. Empty where any CPU is exact.
        opset: ONNX opset of the file; `low_bits` raises it where it must.
        low_bits: How a file holds weights of 4 or 2 bits. "packed": bytes that constant nodes
            unpack; every runtime folds them when it loads the file. "native": affine ones as INT4
            or INT2 (opset 25) behind a blocked DequantizeLinear, for students whose weights alone
            are quantized; ONNX Runtime decodes those at every inference, and OpenVINO refuses
            INT2. Other bits and codebooks are packed in both.
        holds: Which bits it can store and compute.
    """

    activations: Literal["uint8", "int8"]
    weights: Literal["int8"] = "int8"
    weight_granularity: Literal["per_channel", "per_tensor"] = "per_channel"
    bias: Literal["int32", "float32"]
    weight_bits: Bits = 8
    full_range_with: tuple[str, ...] = ()
    opset: Annotated[int, Field(ge=13, le=25)] = 20
    low_bits: Literal["packed", "native"] = "packed"
    holds: Holds = Holds()

    @property
    def training_key(self) -> str:
        """Targets with the same key share one quantized student; the rest is export."""
        held = f" {self.weight_bits} bits" if self.weight_bits < _BYTE_BITS else ""
        return f"a:{self.activations} w:{self.weights}{held} {self.weight_granularity}"

    def on(self, cpu_flags: Collection[str]) -> Scheme:
        """The scheme for one CPU: pairs of products of 7-bit codes always fit into 16 bits."""
        if not self.full_range_with or set(self.full_range_with) & set(cpu_flags):
            return self
        bits = min(self.weight_bits, _BYTE_BITS - 1)
        return self.model_copy(update={"weight_bits": bits})

    @property
    def held(self) -> str:
        """Why the codes of weights have fewer bits than could be stored, or nothing."""
        if not self.full_range_with or self.weight_bits == _BYTE_BITS:
            return ""
        return (
            f"{self.weight_bits} bits: its CPU has none of {', '.join(self.full_range_with)}, "
            f"without which products of {_BYTE_BITS}-bit weights overflow"
        )


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedStudent:
    """A trained student with the integers that every layer will be stored in.

    Attributes:
        graph: ``torch.fx.GraphModule`` in float, batch-norm folded, weights as trained.
        weights: Encoding of each quantized layer, by its dotted path in `graph`.
        activations: Encoding of each quantized tensor, by the fx node that makes it; empty where
            only weights are quantized.
        skipped: Every weighted layer left in float, with the reason. Never left out.
        activation_ranges: "learned" or "observed", for the report.
    """

    graph: Any
    weights: Mapping[str, Encoding]
    activations: Mapping[str, Affine]
    skipped: Mapping[str, str]
    activation_ranges: Literal["learned", "observed"]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a runtime loads, with its hash."""

    path: Path
    sha256: str
    backend: str
    target: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    size_bytes: int


Precision = Literal["int8", "float32", "bfloat16", "float16", "int4", "other"]
Role = Literal["matmul", "requantize", "other"]


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """One node as the runtime really executes it.

    Attributes:
        name: The runtime's name for it; the file's own follows in brackets where it differs.
        op: The runtime's operator, e.g. QLinearConv.
        role: "matmul" for convolutions and matrix products, "requantize" for a Q or DQ node
            that was not fused (graph inputs and outputs excepted), "other".
        precision: What its kernel computes in.
        time_us: Mean time per inference, when the runtime gives it.
        reason: For a matmul not in int8: why, as far as it is known.
    """

    name: str
    op: str
    role: Role
    precision: Precision
    time_us: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class KernelCount:
    """How many convolutions and matrix products run in which kernel.

    Attributes:
        int8: Those in int8 kernels.
        float: Those in a float kernel.
        unfused: Q/DQ nodes left standing inside the graph.
        floats: Name -> reason of each float one.
    """

    int8: int
    float: int
    unfused: int
    floats: Mapping[str, str] = field(default_factory=dict)


# ---------------------------------------------------------------- measuring
class Conditions(Config):
    """What a measurement was made under; no defaults. Profiles compare only under equal ones."""

    batch_size: int
    threads: int
    warm_up: str
    duration: str
    clock: str
    power_mode: str
    interleaved_with: int
    inputs: str


class Profile(Config):
    """Raw timings of one artifact; percentiles are computed from it, never stored.

    Attributes:
        schema_version: Of this file format.
        artifact_sha256: Which file was timed.
        target: Its target's name.
        conditions: How it was timed.
        samples_ns: Every timed inference in order, ns; none deleted.
        environment: Machine, CPU flags, versions, load, governor.
        source: Where the numbers come from. Never "measured" unless a clock ran.
    """

    schema_version: Literal[1] = 1
    artifact_sha256: str
    target: str
    conditions: Conditions
    samples_ns: tuple[int, ...]
    environment: dict[str, Any]
    source: Literal["measured", "predicted", "simulated"]

from __future__ import annotations

import itertools
from typing import Any

import pytest

from edgekd.backends._tensorrt.trtexec_arguments import (
    Switches,
    build_arguments,
    profile_arguments,
    run_arguments,
    time_arguments,
)
from edgekd.core.errors import RecipeError, UnsupportedError
from edgekd.core.target import load_target

ON = Switches(data_transfers=True, spin_wait=True, cuda_graph=True, tf32=True)
OFF = Switches(data_transfers=False, spin_wait=False, cuda_graph=False, tf32=False)
FEEDS = {"input": "input-0.bin"}
LOADED = ["--loadEngine=e", "--loadInputs=input:input-0.bin"]
RULE = ["--iterations=16", "--duration=0", "--warmUp=200", "--infStreams=1", "--exposeDMA"]
REMOVED_IN_11 = {
    "--fp16", "--int8", "--bf16", "--fp8", "--int4", "--best", "--calib", "--stronglyTyped",
    "--noDataTransfers", "--useSpinWait", "--useCudaGraph", "--separateProfileRun",
}  # fmt: skip
NEW_IN_11 = {"--includeDataTransfers", "--noSpinWait", "--noCudaGraph"}


def timed(major: int, switches: Switches) -> list[str]:
    return time_arguments(
        "e", FEEDS, "times.json", runs=16, warm_up_ms=200, major=major, switches=switches
    )


@pytest.mark.parametrize(
    ("major", "switches", "flags"),
    [
        (10, ON, ["--useSpinWait", "--useCudaGraph"]),
        (10, OFF, ["--noDataTransfers"]),
        (11, ON, ["--includeDataTransfers"]),
        (11, OFF, ["--noSpinWait", "--noCudaGraph"]),
    ],
)
def test_a_latency_means_the_same_in_both_versions(
    major: int, switches: Switches, flags: list[str]
) -> None:
    assert timed(major, switches) == [*LOADED, *RULE, *flags, "--exportTimes=times.json"]


def test_a_build_asks_for_types_where_they_are_not_the_rule() -> None:
    common = ["--onnx=m", "--saveEngine=e", "--skipInference", "--profilingVerbosity=detailed"]
    assert build_arguments("m", "e", major=10, switches=OFF) == [
        *common, "--stronglyTyped", "--noTF32",
    ]  # fmt: skip
    assert build_arguments("m", "e", major=11, switches=OFF) == [*common, "--noTF32"]
    assert build_arguments("m", "e", major=11, switches=ON) == common


def test_layers_are_timed_in_a_run_of_their_own() -> None:
    def made(major: int) -> list[str]:
        return profile_arguments("e", FEEDS, "p", "l", runs=10, major=major, switches=ON)

    assert "--separateProfileRun" in made(10)
    assert "--separateProfileRun" not in made(11), "always so"
    for major in (10, 11):
        assert made(major)[-2:] == ["--exportProfile=p", "--exportLayerInfo=l"]


def test_outputs_are_copied_back_whatever_a_latency_is() -> None:
    assert "--noDataTransfers" not in run_arguments("e", FEEDS, "o", major=10, switches=OFF)
    assert "--includeDataTransfers" in run_arguments("e", FEEDS, "o", major=11, switches=OFF)


@pytest.mark.parametrize("values", list(itertools.product([False, True], repeat=4)))
def test_no_version_is_given_a_flag_of_the_other(values: tuple[bool, ...]) -> None:
    switches = Switches(*values)
    for major, strange in ((10, NEW_IN_11), (11, REMOVED_IN_11)):
        commands = [
            build_arguments("m", "e", major=major, switches=switches),
            timed(major, switches),
            run_arguments("e", FEEDS, "o", major=major, switches=switches),
            profile_arguments("e", FEEDS, "p", "l", runs=10, major=major, switches=switches),
        ]
        for command in commands:
            assert not strange & {argument.partition("=")[0] for argument in command}


@pytest.mark.parametrize("name", ["a,b:/etc/passwd", "a:b", "a'b"])
def test_a_name_never_becomes_another_file(name: str) -> None:
    with pytest.raises(UnsupportedError, match="cannot be fed the input"):
        run_arguments("e", {name: "input-0.bin"}, "o", major=10, switches=ON)


@pytest.mark.parametrize("name", ["gpu-tensorrt-int8", "jetson-orin-tensorrt-int8"])
def test_the_shipped_targets_say_what_a_latency_is(name: str) -> None:
    assert Switches.of(load_target(name)) == Switches(
        data_transfers=True, spin_wait=True, cuda_graph=False, tf32=False
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"spin_wait": "yes"}, "expected: true or false\n  got:      'yes'"),
        ({"spin_wiat": True}, "unknown option. Did you mean 'spin_wait'?"),
        ({"cuda_graph": None}, "got:      no cuda_graph"),
    ],
)
def test_options_are_checked(change: dict[str, Any], text: str) -> None:
    target = load_target("gpu-tensorrt-int8")
    options = {k: v for k, v in {**target.options, **change}.items() if v is not None}
    with pytest.raises(RecipeError) as caught:
        Switches.of(target.model_copy(update={"options": options}))
    assert text in caught.value.message

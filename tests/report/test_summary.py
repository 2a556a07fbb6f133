from __future__ import annotations

from collections.abc import Callable

import pytest

from edgekd.report.model import Report, TargetResult
from edgekd.report.summary import closest_point, facts, gains, headline, target_line


def test_one_sentence_per_target(make_target: Callable[..., TargetResult]) -> None:
    target = make_target()
    p90 = target.measured.latency_ms.p90.certified
    assert p90 is not None
    assert target_line(target, "accuracy") == (
        f"{p90 * 1000:.1f} µs p90 certified (n = 1,024), 28.0 KiB, 98.6 % accuracy — "
        "4 of 4 budgets met"
    )


def test_a_refused_p90_and_no_budgets_are_said(make_target: Callable[..., TargetResult]) -> None:
    line = target_line(make_target(n=20, budgets=()), "accuracy")
    assert line.startswith("p90 not certified (needs 64 samples, has 20), ")
    assert line.endswith("— no budgets set")


def test_headline(met_report: Report, missed_report: Report) -> None:
    assert headline(met_report) == "Every budget is met on 2 targets"
    assert headline(missed_report) == "2 of 4 targets meet every budget"
    one = missed_report.model_copy(update={"targets": missed_report.targets[:2]})
    assert headline(one) == "1 of 2 targets meets every budget"


def test_closest_point_is_found_even_if_the_report_does_not_carry_it(
    make_report: Callable[..., Report], make_target: Callable[..., TargetResult]
) -> None:
    missed = make_report((make_target("slow", budgets=("p90<=1us",)),), closest=None)
    text = closest_point(missed)
    assert text is not None
    assert text.startswith("closest: p90 ")


def test_the_worst_target_speaks_for_all(met_report: Report) -> None:
    size, speed, accuracy, kernels = facts(met_report)
    assert (size.value, size.label) == ("22×", "smaller than the teacher")
    slowest = min(t.speedup_p90 or 0 for t in met_report.targets)
    assert speed.value == f"{slowest:.1f}×"
    assert "x86-openvino-int8; same runtime, same threads, interleaved" in speed.detail
    assert speed.source == "measured: certified p90"
    assert (accuracy.value, accuracy.label) == ("0.28 pt", "lost against the teacher")
    assert (kernels.value, kernels.label) == ("20 of 20", "kernels in int8")


def test_facts_that_do_not_exist_are_left_out_and_losses_are_named(
    make_report: Callable[..., Report], make_target: Callable[..., TargetResult]
) -> None:
    slow = make_target(precision="float32", median_ms=0.4, score=0.99)
    report = make_report((slow,), student_size_ratio=None)
    labels = [fact.label for fact in facts(report)]
    assert labels == ["slower than the teacher", "gained against the teacher"]


def test_gains_are_differences_of_means_over_seeds(met_report: Report) -> None:
    by_title = {gain.title: gain for gain in gains(met_report)}
    # means: control 0.9759267, distilled 0.9879633, post-training 0.98333, quantized 0.98611
    assert by_title["Distillation"].points == pytest.approx(1.2037, abs=1e-4)
    assert by_title["Distillation"].overlap is False
    assert by_title["Post-training quantization"].points == pytest.approx(-0.4633, abs=1e-3)
    assert by_title["Quantized distillation"].points == pytest.approx(-0.1853, abs=1e-3)
    assert by_title["Quantized distillation"].overlap is True
    assert len(by_title) == 4


def test_gains_need_both_arms_and_more_than_a_seed_to_speak_of_luck(
    met_report: Report, missed_report: Report
) -> None:
    assert gains(missed_report) == ()
    single = tuple(arm.model_copy(update={"scores": arm.scores[:1]}) for arm in met_report.arms)
    assert {g.overlap for g in gains(met_report.model_copy(update={"arms": single}))} == {None}


def test_quantized_arms_are_compared_with_the_float_arm_that_was_kept(met_report: Report) -> None:
    control, distilled, post_training, _ = met_report.arms
    arms = (
        control.model_copy(update={"chosen_seed": 1}),
        distilled.model_copy(update={"chosen_seed": None}),
        post_training,
    )
    _, quantization = gains(met_report.model_copy(update={"arms": arms}))
    assert quantization.before == control.title
    assert quantization.points == pytest.approx(0.74, abs=1e-2)


def test_quantized_distillation_is_compared_with_its_control(met_report: Report) -> None:
    *arms, quantized = met_report.arms
    control = quantized.model_copy(update={"name": "quantized_control", "title": "labels"})
    found = gains(met_report.model_copy(update={"arms": (*arms, control, quantized)}))
    assert (found[-1].title, found[-1].before, found[-1].points) == (
        "Quantized distillation over labels alone",
        "labels",
        0.0,
    )


def test_every_quantization_scheme_has_its_own_gains(met_report: Report) -> None:
    control, distilled, post_training, quantized = met_report.arms
    second = [a.model_copy(update={"title": f"{a.title} B"}) for a in (post_training, quantized)]
    arms = (control, distilled, post_training, quantized, *second)
    found = gains(met_report.model_copy(update={"arms": arms}))
    assert len(found) == 7
    assert (found[-1].before, found[-1].after) == (second[0].title, second[1].title)

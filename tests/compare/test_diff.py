from __future__ import annotations

import numpy as np
import pytest

from retrieval_bench.compare.diff import diff
from retrieval_bench.compare.gates import parse_gate
from retrieval_bench.compare.reload import Values
from retrieval_bench.core import BenchError, NotComparable
from retrieval_bench.evaluation.bootstrap import RESAMPLES, intervals, resampled_means
from retrieval_bench.records.schema import ClassifierFacts, OpenSet, Robustness, TimeFigure
from retrieval_bench.report.verdict import as_data, github, lines, markdown
from tests.support.records import failed, record, row

SCORES = {"accuracy": 0.5, "map@r": 0.4}


def moved(by: float, name: str = "accuracy", fit: str = "nothing to learn"):
    features = row().features
    assert features is not None
    return row("sift", scores=SCORES | {name: SCORES[name] + by}, features=features.model_copy(update={"fit": fit}))


def test_a_record_is_the_same_as_itself() -> None:
    one = record(row(), row("hog"))
    verdict = diff(one, one)
    assert verdict.passed
    assert all(change.delta == 0 for change in verdict.quality)
    assert "same: 2 methods" in lines(verdict)[0]


@pytest.mark.parametrize("by", [0.03, -0.03])
@pytest.mark.parametrize("name", ["accuracy", "map@r"])
def test_what_moves_beyond_the_tolerance_fails_in_either_direction(by: float, name: str) -> None:
    verdict = diff(record(moved(0)), record(moved(by, name)), tolerance=0.02)
    assert not verdict.passed
    assert [(change.name, round(change.delta, 6)) for change in verdict.moved] == [(name, by)]
    assert f"sift: {name}" in "\n".join(lines(verdict))


def test_what_moves_within_the_tolerance_passes_up_to_the_edge() -> None:
    assert diff(record(moved(0)), record(moved(0.02)), tolerance=0.02).passed
    assert not diff(record(moved(0)), record(moved(0.021)), tolerance=0.02).passed


@pytest.mark.parametrize("fit", ["learned", "from cache"])
def test_rows_that_learn_have_their_own_tolerance(fit: str) -> None:
    before, after = record(moved(0, fit=fit)), record(moved(0.05, fit=fit))
    assert diff(before, after, tolerance=0.02, learned_tolerance=0.06).passed
    assert not diff(before, after, tolerance=0.02, learned_tolerance=0.04).passed
    assert not diff(record(moved(0)), record(moved(0.05)), tolerance=0.02, learned_tolerance=0.06).passed


def test_a_classifier_is_held_like_any_other_figure() -> None:
    def with_svm(accuracy: float):
        return row("sift", classifiers={"svm": ClassifierFacts(scores={"accuracy": accuracy})})

    assert diff(record(with_svm(0.6)), record(with_svm(0.6))).passed
    verdict = diff(record(with_svm(0.6)), record(with_svm(0.7)))
    assert [(change.name, round(change.delta, 6)) for change in verdict.moved] == [("svm accuracy", 0.1)]
    assert diff(record(with_svm(0.6)), record(row("sift"))).broken == ("sift has no svm accuracy in the second record",)


def test_a_missing_row_fails_and_an_added_one_is_named() -> None:
    verdict = diff(record(row("sift"), row("hog")), record(row("sift"), row("orb")))
    assert not verdict.passed
    assert verdict.broken == ("hog is missing in the second record",)
    assert verdict.added == ("orb",)


def test_a_row_that_fails_now_fails_the_diff() -> None:
    verdict = diff(record(row("vgg16")), record(failed("vgg16", "no weights")))
    assert not verdict.passed
    assert verdict.broken == ("vgg16 failed in the second record",)


def test_two_failures_are_not_the_same_result() -> None:
    verdict = diff(record(failed()), record(failed()))
    assert verdict.broken == ("vgg16 failed in the first and the second record",)
    assert not verdict.passed


def test_a_row_that_failed_before_is_not_held_against_its_weights() -> None:
    now = row("vgg16", weights={"source": "a", "sha256": "1", "recipe": "V1"})
    assert diff(record(failed()), record(now)).broken == ("vgg16 failed in the first record",)


@pytest.mark.parametrize("status", ["running", "interrupted"])
def test_a_run_that_did_not_finish_never_passes(status: str) -> None:
    assert not diff(record(row()), record(row(), status=status)).passed
    assert not diff(record(row(), status=status), record(row())).passed


def test_a_metric_that_is_gone_fails() -> None:
    verdict = diff(record(row(scores=SCORES)), record(row(scores={"accuracy": 0.5})))
    assert verdict.broken == ("sift has no map@r in the second record",)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"dataset": {"fingerprint": "cd" * 32}}, "fingerprint"),
        ({"dataset": {"name": "other"}}, "the dataset differs"),
        ({"dataset": {"queries_left_out": 3}}, "queries left out"),
        ({"settings": {"k": (1, 5)}}, "k differs"),
        ({"settings": {"limit": 10}}, "the limit"),
        ({"settings": {"seed": 1}}, "the seed"),
        ({"settings": {"backend": "of a plug-in"}}, "the backend"),
    ],
)
def test_other_conditions_are_not_comparable(changes: dict, what: str) -> None:
    with pytest.raises(NotComparable, match=what):
        diff(record(row()), record(row(), **changes))


def test_exact_backends_must_agree_and_their_speed_is_not_compared() -> None:
    one = record(row())
    verdict = diff(one, record(row(), settings={"backend": "numpy"}))
    assert verdict.quality
    assert not verdict.speed
    assert any("exact and numpy are exact both" in note for note in verdict.notes)


def test_another_definition_is_not_comparable() -> None:
    one = record(row())
    changed = one.metrics["accuracy"].model_copy(update={"definition": "something else"})
    with pytest.raises(NotComparable, match="accuracy is defined differently"):
        diff(one, one.model_copy(update={"metrics": {"accuracy": changed}}))


def test_other_weights_are_not_comparable() -> None:
    one = record(row("resnet18", weights={"source": "a.pth", "sha256": "1"}))
    other = record(row("resnet18", weights={"source": "a.pth", "sha256": "2"}))
    with pytest.raises(NotComparable, match=r"resnet18 has other weights \(1 and 2\)$"):
        diff(one, other)


def test_random_weights_are_held_together_by_their_seed() -> None:
    def untrained(source: str, sha256: str):
        return record(row("resnet18[untrained]", weights={"source": source, "sha256": sha256}))

    assert diff(untrained("seed 0", "1"), untrained("seed 0", "2")).passed
    with pytest.raises(NotComparable):
        diff(untrained("seed 0", "1"), untrained("seed 1", "1"))


def test_speed_is_shown_between_equal_machines_only_and_never_judged() -> None:
    slow = row(times={"search_p50": TimeFigure(value=10.0, unit="ms")})
    fast = row(times={"search_p50": TimeFigure(value=1.0, unit="ms")})
    verdict = diff(record(fast), record(slow))
    assert verdict.passed
    assert [change.ratio for change in verdict.speed] == [10.0]
    elsewhere = diff(record(fast), record(slow, environment={"processor": "another"}))
    assert elsewhere.speed == ()
    assert "not compared" in lines(elsewhere)[-1]
    threads = diff(record(fast), record(slow, settings={"threads": 1}))
    assert threads.speed == ()


def test_a_verdict_is_plain_data() -> None:
    import json

    content = json.loads(json.dumps(as_data(diff(record(moved(0)), record(moved(0.5))))))
    assert content["passed"] is False
    assert content["moved"][0]["name"] == "accuracy"


def timed(ms: float | None, n: int | None = 128, fit: float = 1.0):
    times = {"search_p50": TimeFigure(value=ms, unit="ms", n=n), "fit": TimeFigure(value=fit, unit="s")}
    return row(times=times | {"extract_throughput": TimeFigure(value=100.0, unit="images/s", n=9)})


def gated(before, after, *gates: str, **changes):
    return diff(record(before), record(after, **changes), gates=[parse_gate(gate) for gate in gates])


def test_a_quality_gate_fails_on_a_fall_and_on_nothing_else() -> None:
    assert gated(moved(0), moved(-0.009), "accuracy:0.01").passed
    verdict = gated(moved(0), moved(-0.011), "accuracy:0.01")
    assert not verdict.passed
    assert "--fail accuracy:0.01" in "\n".join(lines(verdict))
    assert gated(moved(0), moved(0.3), "accuracy:0.01").passed
    assert gated(moved(0), moved(-0.3, "map@r"), "accuracy:0.01").passed, "only what was asked for is judged"
    assert gated(moved(0), moved(-0.02), "accuracy:5%").passed
    assert not gated(moved(0), moved(-0.03), "accuracy:5%").passed


@pytest.mark.parametrize("name", ["search_ms_p50", "search_p50"])
def test_a_speed_gate_takes_percent_and_the_unit(name: str) -> None:
    assert gated(timed(10), timed(11.9), f"{name}:20%").passed
    assert not gated(timed(10), timed(12.1), f"{name}:20%").passed
    assert gated(timed(10), timed(1), f"{name}:20%").passed
    assert not gated(timed(10), timed(12.1), f"{name}:2").passed
    faster = timed(10).model_copy(
        update={"times": {"extract_throughput": TimeFigure(value=50.0, unit="images/s", n=9)}}
    )
    assert not gated(timed(10), faster, "extract_throughput:20%").passed
    assert gated(faster, timed(10), "extract_throughput:20%").passed


def test_a_speed_gate_beside_other_processes_is_not_judged() -> None:
    disturbed = timed(99).model_copy(update={"other_processes": 0.34})
    for before, after in ((timed(10), disturbed), (disturbed, timed(10))):
        verdict = gated(before, after, "search_ms_p50:20%")
        assert verdict.passed
        assert "other processes took up to 34 % of the cores while" in verdict.unjudged[0]
    calm = timed(99).model_copy(update={"other_processes": 0.05})
    assert not gated(timed(10), calm, "search_ms_p50:20%").passed


def test_a_speed_gate_between_machines_or_measured_once_is_not_judged() -> None:
    elsewhere = gated(timed(10), timed(99), "search_ms_p50:20%", environment={"processor": "another"})
    assert elsewhere.passed
    assert "different machines" in elsewhere.unjudged[0]
    assert lines(elsewhere)[0].startswith("not comparable")
    once = gated(timed(10), timed(10, fit=9.0), "fit_s:20%")
    assert once.passed
    assert "measures it once" in once.unjudged[0]


@pytest.mark.parametrize("text", ["accuracy", "accuracy:", "accuracy:-1", "accuracy:nan", ":0.1", "accuracy:1e", ""])
def test_what_is_no_gate_is_refused(text: str) -> None:
    with pytest.raises(BenchError, match="write NAME:LIMIT"):
        parse_gate(text)


@pytest.mark.parametrize("text", ["accuracy:5", "accuracy:1", "accuracy:100%"])
def test_a_gate_that_no_score_can_fail_is_refused(text: str) -> None:
    with pytest.raises(BenchError, match=r"this never fails; lower the limit, e\.g\. accuracy:0\.01 or accuracy:1%"):
        diff(record(moved(0)), record(moved(-0.5)), gates=[parse_gate(text)])
    assert not diff(record(moved(0)), record(moved(-0.5)), gates=[parse_gate("accuracy:0.4")]).passed


def test_a_gate_on_nothing_is_refused() -> None:
    with pytest.raises(BenchError, match="no row has acuracy; known are accuracy"):
        gated(moved(0), moved(0), "acuracy:0.1")


def values(*hits: float, ids: tuple[str, ...] | None = None) -> Values:
    column = np.array(hits, np.float64)
    ids = ids or tuple(map(str, range(len(hits))))
    return Values(ids, np.arange(len(hits)) // 2, {"sift": {"accuracy": column}})


def test_quality_is_paired_query_by_query() -> None:
    old, new = values(1, 1, 0, 0, 1, 0, 1, 0), values(1, 0, 0, 1, 1, 0, 1, 1)
    one, other = (record(row(scores={"accuracy": score})) for score in (0.5, 0.625))
    change = diff(one, other, values=(old, new)).quality[0]
    differences = np.array([[0.0], [-1], [0], [1], [0], [0], [0], [1]])
    ((low, high),) = intervals(resampled_means(differences, old.clusters, RESAMPLES, 0), 4)
    assert (change.low, change.high) == pytest.approx((low, high))
    assert diff(one, one, values=(old, old)).quality[0].low == 0.0
    assert diff(one, one, values=(old, values(1, 0, ids=("x", "y")))).quality[0].low is None
    assert diff(one, one, values=(old, None)).quality[0].low is None


def test_a_metric_that_an_earlier_version_lacks_is_told_and_fails_nothing() -> None:
    old = record(row(scores={"accuracy": 0.5}))
    metrics = old.metrics | dict.fromkeys(("class_mean_recall", "class_mean_map@r"), old.metrics["accuracy"])
    scores = {"accuracy": 0.5, "class_mean_recall@5": 0.4, "class_mean_map@r": 0.3}
    new = record(row(scores=scores), metrics=metrics)
    forwards, back = diff(old, new), diff(new, old)
    assert forwards.passed
    assert back.passed
    (note,) = forwards.notes
    assert note.startswith("class_mean_recall, class_mean_map@r: only in the second record")
    assert forwards.unjudged == ()
    (sentence,) = back.unjudged
    assert sentence.startswith("class_mean_recall, class_mean_map@r: not comparable, the version that made the second")
    assert diff(new, new.model_copy(update={"rows": old.rows})).broken == (
        "sift has no class_mean_map@r, class_mean_recall@5 in the second record",
    )


def test_markdown_is_fit_for_a_pull_request() -> None:
    name = "sift:words=8|x<script>"
    one, other = (record(row(name, scores={"accuracy": value})) for value in (0.5, 0.7))
    text = markdown(diff(one, other))
    assert text.startswith("### ❌")
    assert "<script" not in text
    table = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table[:3]} == {7}
    assert "### ✅" in markdown(diff(one, one))


def test_github_lists_say_which_way_is_better() -> None:
    lists = github(record(timed(10)))
    assert [entry["name"] for entry in lists["customSmallerIsBetter"]] == ["sift search_ms_p50", "sift fit_s"]
    bigger = {entry["name"]: entry for entry in lists["customBiggerIsBetter"]}
    assert bigger["sift accuracy"] == {"name": "sift accuracy", "unit": "score", "value": 0.5}
    assert bigger["sift extract_throughput"]["unit"] == "images/s"


@pytest.mark.parametrize("rule", ["definition", "denominator", "ties", "empty"])
def test_another_rule_of_a_metric_is_not_comparable(rule: str) -> None:
    facts = record(row()).metrics["accuracy"].model_copy(update={rule: "as it was"})
    one = record(row()).model_copy(update={"metrics": {"accuracy": facts}})
    other = one.model_copy(update={"metrics": {"accuracy": facts.model_copy(update={rule: "otherwise"})}})
    with pytest.raises(NotComparable, match=f"accuracy is defined differently.*{rule}: 'as it was'"):
        diff(one, other)
    if rule != "definition":  # a record of an earlier version does not say it
        assert diff(one.model_copy(update={"metrics": {"accuracy": facts.model_copy(update={rule: ""})}}), other).passed


def test_a_score_that_is_not_what_its_rankings_give_fails() -> None:
    """A record edited by hand, or written by code that counts another way, does not pass."""
    honest = record(row(scores={"accuracy": 0.5}))
    raised = record(row(scores={"accuracy": 0.75}))
    found = values(1, 0, 1, 0)
    assert diff(honest, honest, values=(found, found)).passed
    verdict = diff(honest, raised, tolerance=1.0, values=(found, found))
    (sentence,) = verdict.broken
    assert sentence.startswith("sift has in the second record accuracy 0.750000, its rankings give 0.500000: ")
    assert not verdict.passed


@pytest.mark.parametrize("said", [0.5, 0.75])
def test_nothing_false_is_told_of_a_contradicted_row(said: float) -> None:
    """Neither that it is identical, nor the interval of a difference that its scores do not have."""
    one, other = record(row(scores={"accuracy": 0.5})), record(row(scores={"accuracy": said}))
    found = values(1, 0, 1, 0), values(*((1, 0, 1, 0) if said > 0.5 else (1, 0, 0, 0)))
    verdict = diff(one, other, values=found)
    assert verdict.contradicted == ("sift",)
    (change,) = (change for change in verdict.quality if change.name == "accuracy")
    assert (change.low, change.high) == (None, None)
    told = "\n".join(lines(verdict))
    assert "Identical" not in told
    assert told.startswith("different: 1 row missing, failed, incomplete or contradicted")


def test_what_is_identical_is_one_sentence() -> None:
    one = record(*(row(name, scores=SCORES, times={}) for name in ("sift", "phash", "color")))
    nudged = row("color", scores=SCORES | {"accuracy": 0.51}, times={})
    verdict = diff(one, record(*(row(name, scores=SCORES, times={}) for name in ("sift", "phash")), nudged))
    for text in ("\n".join(lines(verdict)), markdown(verdict)):
        assert "Identical in every quality number: sift, phash" in text
        assert text.count("sift") == 1
    assert lines(verdict)[0].startswith("same: 3 methods")


def test_a_time_measured_once_says_so() -> None:
    one = record(timed(10))
    text = "\n".join(lines(diff(one, one)))
    assert "sift: fit_s 1.00 -> 1.00 s (x 1.00, measured once)" in text
    assert "sift: search_ms_p50 10.0 -> 10.0 ms (x 1.00)" in text


def perturbed(*steps: tuple[str, int, float], **changes):
    """A record of one method asked with these perturbed queries: name, severity, accuracy."""
    curves = [Robustness(perturbation=name, severity=step, scores={"accuracy": value}) for name, step, value in steps]
    asked = {"perturb": tuple(dict.fromkeys(name for name, _, _ in steps)), "severities": (1, 3)}
    return record(row("sift", robustness=tuple(curves)), **({"settings": asked} | changes))


CURVE = (("blur", 1, 0.5), ("blur", 3, 0.4))


def test_curves_are_held_severity_by_severity() -> None:
    before, after = perturbed(*CURVE), perturbed(("blur", 1, 0.5), ("blur", 3, 0.3))
    assert diff(before, before).passed
    verdict = diff(before, after, learned_tolerance=0.06)
    assert [(change.name, round(change.delta, 6)) for change in verdict.moved] == [("accuracy blur@3", -0.1)]
    assert "sift: accuracy blur@3 0.4000 -> 0.3000 (-0.1000)" in "\n".join(lines(verdict))
    assert "| sift | blur@3 | 0.4000 | 0.3000 | -0.1000 |" in markdown(verdict)
    assert "| sift | blur@3 |" not in markdown(diff(before, before))


def test_a_gate_names_a_point_of_a_curve() -> None:
    before, after = perturbed(*CURVE), perturbed(("blur", 1, 0.5), ("blur", 3, 0.3))
    gate = parse_gate("accuracy blur@3:0.05")
    assert not diff(before, after, gates=[gate]).passed
    assert diff(before, after, gates=[parse_gate("accuracy blur@3:30%")]).passed
    assert diff(before, after, gates=[parse_gate("accuracy blur@1:0.01")]).passed
    assert diff(after, before, gates=[gate]).passed, "better is no failure"
    with pytest.raises(BenchError, match=r"no row has accuracy blur@2; known are .*, accuracy blur@1 and so on"):
        diff(before, after, gates=[parse_gate("accuracy blur@2:0.05")])


def test_a_curve_that_a_method_lost_fails() -> None:
    asked = {"settings": {"perturb": ("blur",), "severities": (1, 3)}}
    verdict = diff(perturbed(*CURVE), record(row("sift"), **asked))
    assert verdict.broken == ("sift has no score of blur@1, score of blur@3 in the second record",)
    assert not verdict.passed


def test_perturbed_queries_that_were_not_asked_are_not_comparable() -> None:
    before, after = perturbed(*CURVE, ("crop", 1, 0.2)), perturbed(*CURVE)
    verdict = diff(before, after)
    assert verdict.passed
    assert verdict.unjudged[0].startswith("the perturbed queries crop@1: not comparable, the second run did not ask")
    assert "accuracy blur@3" in [change.name for change in verdict.quality]
    gated_elsewhere = diff(before, after, gates=[parse_gate("accuracy:0.1")])
    assert gated_elsewhere.unjudged == ()
    assert "crop@1: not comparable" in "\n".join(lines(gated_elsewhere))
    gated_there = diff(before, after, gates=[parse_gate("accuracy crop@1:0.1")])
    (sentence,) = gated_there.unjudged
    assert sentence.startswith("accuracy crop@1:0.1: not comparable, the second record has no such figure of sift")
    more = diff(after, before)
    assert (more.passed, more.unjudged) == (True, ())
    assert "crop@1 are only in the second record" in markdown(more)


def test_a_perturbation_that_does_something_else_is_not_comparable() -> None:
    before, after = (perturbed(*CURVE, perturbations={"blur": f"sigma {sigma}"}) for sigma in (1, 2))
    with pytest.raises(NotComparable, match=r"blur perturbs differently .*'sigma 1' and 'sigma 2'"):
        diff(before, after)
    assert diff(perturbed(*CURVE), after).passed, "a record of an earlier version does not say it"


def test_options_that_changed_under_one_name_are_shown_and_fail_nothing() -> None:
    one = record(row("sift+qe", params={"sift": {"side": 320, "root": True}, "qe": {"n": 5}}))
    other = record(row("sift+qe", params={"sift": {"side": 384, "colour": "lab"}, "qe": {"n": 5}}))
    verdict = diff(one, other)
    assert verdict.passed
    sentence = "sift+qe: sift side 320 -> 384, sift root True -> absent, sift colour absent -> lab"
    assert sentence in "\n".join(lines(verdict))
    assert f"- {sentence}" in markdown(verdict)
    assert as_data(verdict)["options"][0] == {"method": "sift+qe", "name": "sift side", "before": 320, "after": 384}
    assert diff(one, one).options == ()
    assert diff(record(row("sift+qe")), other).options == (), "a record of an earlier version keeps none"


def test_a_gated_time_that_is_gone_is_not_judged() -> None:
    verdict = gated(timed(10), timed(None), "search_ms_p50:20%")
    assert verdict.unjudged == ("search_ms_p50:20%: not comparable, the second record has no such figure of sift",)
    assert "the first record" in gated(timed(None), timed(10), "search_p50:20%").unjudged[0]


def test_records_without_methods_are_not_comparable() -> None:
    with pytest.raises(NotComparable, match="the first record has no method"):
        diff(record(), record())


def test_github_lists_hold_classifiers_and_curves() -> None:
    one = perturbed(*CURVE)
    with_head = one.rows[0].model_copy(update={"classifiers": {"svm": ClassifierFacts(scores={"accuracy": 0.6})}})
    entries = github(one.model_copy(update={"rows": (with_head,)}))["customBiggerIsBetter"]
    assert {"sift svm accuracy", "sift accuracy blur@3"} <= {entry["name"] for entry in entries}


def told(auroc: float | None):
    scores = {} if auroc is None else {"auroc": auroc, "rejected@95": 0.5}
    return row("sift", open_set=OpenSet(answerable=10, unanswerable=4, scores=scores))


def test_queries_without_an_answer_are_compared_where_both_records_know_them() -> None:
    verdict = diff(record(told(0.8)), record(told(0.7)))
    assert [(change.name, round(change.delta, 6)) for change in verdict.moved] == [("auroc", -0.1)]
    assert diff(record(told(0.8)), record(told(0.8))).passed
    for one, other in ((row("sift"), told(0.8)), (told(0.8), row("sift")), (told(0.8), told(None))):
        assert diff(record(one), record(other)).passed
    gated = diff(record(told(0.8)), record(told(0.7)), gates=[parse_gate("auroc:0.05")])
    assert not gated.passed
    absent = diff(record(told(0.8)), record(row("sift")), gates=[parse_gate("auroc:0.05")])
    assert absent.unjudged
    assert "sift auroc" in str(github(record(told(0.8))))

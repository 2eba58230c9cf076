"""The contest of networks: who takes part, what is compared, and what the lines say."""

from __future__ import annotations

import sys

import pytest

import retrieval_bench.datasets
import retrieval_bench.extractors  # noqa: F401 - registers the networks
from benchmark import network as command
from retrieval_bench.core import Setup
from retrieval_bench.datasets.splits import limit
from retrieval_bench.peer_benchmarks import networks
from retrieval_bench.peer_benchmarks.networks import INT8, PEER, PLAIN, NetworkResults, Way
from retrieval_bench.registry import DATASETS


def way(name: str, *seconds: float) -> Way:
    return Way(name, {}, "1", list(seconds), 0.5, 1.0)


def test_ratios_are_medians_over_rounds_and_targets_are_judged() -> None:
    ways = [way(PLAIN, 8, 10, 12), way("compute=fused", 4, 4, 4), way("compute=bfloat16", 2, 2, 6), way(PEER, 3, 3, 3)]
    contest = NetworkResults("toy", 224, 10, 2, 3, ways, ["a note"])
    assert contest.ratio("compute=bfloat16", PLAIN) == 4
    assert contest.ratio("compute=bfloat16", PEER) == 1.5
    assert [one.name for one in contest.judged] == ["compute=bfloat16"]
    text = "\n".join(contest.lines())
    assert "to plain loop, at least 4.0: 4.00, reached" in text
    assert "to onnxruntime, at least 1.3: 1.50, reached" in text
    assert text.endswith("a note")
    without = NetworkResults("toy", 224, 10, 2, 3, ways[:2], [])
    assert "to plain loop, at least 4.0: 2.50, NOT reached" in "\n".join(without.lines())
    assert "to onnxruntime, at least 1.3: not measured" in "\n".join(without.lines())
    narrow = NetworkResults("toy", 224, 10, 2, 3, [*ways, way(INT8, 2, 2, 2)], [])
    assert [one.name for one in narrow.judged] == ["compute=bfloat16", INT8]
    assert f"{INT8} to plain loop, at least 4.0: 5.00, reached" in "\n".join(narrow.lines())


@pytest.mark.long(reason="builds and times a network in every way there is")
def test_every_way_finds_the_same_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(networks, "SIZES", (1, 2))
    dataset = limit(DATASETS["products"].build(None), 12)
    contest = networks.contest("squeezenet1_0", dataset, images=2, rounds=1, threads=1, setup=Setup(weights="random"))
    assert [one.name for one in contest.ways][:3] == [PLAIN, "compute=float32", "compute=fused"]
    assert contest.ways[0].same == 1
    assert all(one.same is not None and one.same > 0.8 for one in contest.ways)
    assert all(one.chosen in one.settings and one.rate(2) > 0 for one in contest.ways)
    assert "did not take part" in contest.notes[0]
    assert "onnxruntime" in contest.notes[0]


@pytest.mark.long(reason="builds and times a network in every way there is")
def test_onnxruntime_and_whole_numbers_find_neighbours_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the extra `onnx` is not installed")
    monkeypatch.setattr(networks, "SIZES", (1, 2))
    dataset = limit(DATASETS["products"].build(None), 12)
    contest = networks.contest("squeezenet1_0", dataset, images=2, rounds=1, threads=1, setup=Setup(weights="random"))
    same = {one.name: one.same for one in contest.ways}
    assert same[PEER] == pytest.approx(1, abs=0.05)
    assert (same[INT8] or 0) > 0.5
    assert "calibrated on" in contest.notes[1]


def test_the_command_says_what_is_wrong_in_one_sentence() -> None:
    from typer.testing import CliRunner

    result = CliRunner().invoke(command.app, ["--network", "resnt50"])
    assert result.exit_code == command.USER_MISTAKE
    assert "did you mean 'resnet50'" in result.output

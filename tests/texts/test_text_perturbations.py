"""Perturbations of texts: pure functions that grow with the severity, and rows of a run that has texts."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.experiment.runner import run
from retrieval_bench.images.perturbations import SEVERITIES
from retrieval_bench.registry import TEXT_PERTURBATIONS
from retrieval_bench.texts.perturbations import levels, parse_perturbations, perturbed_text
from tests.support.runs import plan
from tests.support.shop import shop

NAMES = ("typos", "drop-words", "synonyms", "spanish", "capitals")
TEXT = "navy coffee mug with dark blue stripes and a star, Panda, hand made"
STRANGE = ("", " ", "\n", "mug", "🎉🎉", "קומקום אדום", "赤いマグ", "a\x00b", "\ud800x", "<b>red</b>", "red " * 2000)


def test_the_five_are_there() -> None:
    assert tuple(entry.name for entry in TEXT_PERTURBATIONS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_any_text_stays_a_text_and_chance_depends_on_text_and_seed_alone(name: str) -> None:
    for text in (*STRANGE, TEXT):
        for severity in (1, 5):
            after = perturbed_text(name, text, severity)
            assert isinstance(after, str)
            assert bool(after.split()) == bool(text.split())
            assert after == perturbed_text(name, text, severity)


@pytest.mark.parametrize("name", NAMES[:4])
def test_one_and_the_same_change_only_grows(name: str) -> None:
    for seed in range(5):
        changed = []
        for severity in SEVERITIES:
            words = perturbed_text(name, TEXT, severity, seed).split()
            changed.append(1 - difflib.SequenceMatcher(None, TEXT.split(), words).ratio())
        assert changed == sorted(changed)
        assert changed[0] < changed[-1]
    assert len({perturbed_text(name, TEXT, 3, seed) for seed in range(9)}) > 1


def test_what_each_does() -> None:
    assert perturbed_text("capitals", "red Mug", 1) == "RED MUG"
    assert perturbed_text("spanish", "red mug with stars", 5) == "rojo taza con estrella"
    assert perturbed_text("spanish", "Panda 500 ml", 5) == "Panda 500 ml"
    assert perturbed_text("synonyms", "navy", 5) in ("dark blue", "midnight blue")
    assert "dark blue" not in perturbed_text("synonyms", "dark blue mug", 5)  # both words are one
    assert perturbed_text("drop-words", "mug", 5) == "mug"
    assert perturbed_text("typos", "a red cap", 5) == "a red cap"  # too short to be misspelt
    assert perturbed_text("typos", "stripes", 5) != "stripes"
    with pytest.raises(BenchError, match="severity 6 of typos"):
        perturbed_text("typos", "x", 6)


def test_all_means_what_the_queries_are() -> None:
    image, text, both = (frozenset(one.split("+")) for one in ("image", "text", "image+text"))
    assert parse_perturbations("all", text) == NAMES
    assert set(parse_perturbations("all", both)) == {*parse_perturbations("all", image), *NAMES}
    assert levels("capitals", (2, 4)) == (1,)
    assert levels("typos", (2, 4)) == (2, 4)
    with pytest.raises(BenchError, match="typos changes texts, and no method of this run reads texts of queries"):
        parse_perturbations("typos", image)
    with pytest.raises(BenchError, match="blur changes pictures"):
        parse_perturbations("blur", text)
    with pytest.raises(BenchError, match="did you mean 'typos'"):
        parse_perturbations("typo", text)


def test_each_method_is_asked_what_it_reads(tmp_path: Path) -> None:
    data = shop()
    words = ("crimson shirt", "emerald lamp", "dark blue mug", "mustard clock")
    data = data.with_splits(
        {name: replace(one, texts=tuple(words[label] for label in one.labels)) for name, one in data.splits.items()}
    )
    asked = plan(data, "hsv", "tfidf", "hsv+tfidf+rrf", perturb=("flip", "spanish"), severities=(5,))
    record = run(asked, tmp_path)
    assert [[one.perturbation for one in row.robustness] for row in record.rows] == [
        ["flip"],
        ["spanish"],
        ["flip", "spanish"],
    ]
    assert record.rows[1].robustness[0].scores["accuracy"] < record.rows[1].scores["accuracy"] == 1.0
    assert set(record.perturbations) == {"flip", "spanish"}

"""Options that a program gives to a builder: one of the wrong type is one sentence, as in a text, and no TypeError."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.registry import ALL, EXTRACTORS, STEPS, Entry, Registry, Spec, fill, of_this_package, parse

fill()

PROVIDED = "resnet18"
"""Stands for all networks of torchvision, which have one list of options."""
SETUP = Setup(weights="random")
OPTIONS = [
    (what, entry.name, option)
    for what, registry in ALL.items()
    for entry in [*registry.own(), *([registry[PROVIDED]] if registry is EXTRACTORS else [])]
    for option in entry.options
    if of_this_package(entry)
]


def wrong_values(kind: Any) -> list[Any]:
    """Values of other types than an option has."""
    if kind is int:
        return ["8", 2.5, None, True, math.nan, [8]]
    if kind is float:
        return ["0.5", None, True, math.inf, 10**400]
    if kind is bool:
        return ["yes", None, 1]
    if get_origin(kind) is Literal:
        return ["nothing of the kind", None, 0.5, np.zeros(2)]
    assert kind is str
    return [5, None, ["text"]]


@pytest.mark.parametrize(("what", "name", "option"), OPTIONS)
def test_a_value_of_another_type_is_one_sentence(what: str, name: str, option: str) -> None:
    entry = ALL[what][name]
    hint = entry.hints[option]
    kind = hint if get_origin(hint) is Literal or not get_args(hint) else get_args(hint)[0]
    for value in wrong_values(kind):
        with pytest.raises(BenchError) as error:
            entry.build(**{option: value})  # the first thing that is looked at: no builder sees it
        assert str(error.value).startswith(f"{name}: {option}=")
        assert "\n" not in str(error.value)


def test_what_the_sentence_says() -> None:
    def told(name: str, **options: Any) -> str:
        with pytest.raises(BenchError) as error:
            EXTRACTORS[name].build(SETUP, **options)
        return str(error.value)

    assert told("phash", size="8") == "phash: size='8' is not a whole number"
    assert told("sift", power="1") == "sift: power='1' is not a finite number"
    assert told("sift", encode=5) == "sift: encode=5 is not text"
    assert told("resnet18", flip="yes") == "resnet18: flip='yes' is neither true nor false"
    assert told("resnet18", dtype="float64") == "resnet18: dtype='float64' is not one of float32, float16, int8, bits"
    assert told("phash", sizes=8) == "unknown option of phash 'sizes'; did you mean 'size'?"


def test_numbers_of_numpy_and_whole_numbers_for_others_are_taken() -> None:
    EXTRACTORS["phash"].build(SETUP, size=np.int64(4))
    EXTRACTORS["sift"].build(SETUP, power=1)
    EXTRACTORS["sift"].build(SETUP, power=np.float32(0.5))
    STEPS["qe"].build(n=3, alpha=1)


def test_a_specification_that_a_program_made_is_checked_before_weights_are_loaded() -> None:
    with pytest.raises(BenchError, match="resnet18: size='224' is not a whole number"):
        Spec(EXTRACTORS["resnet18"], {"size": "224"}).check(SETUP)


def test_a_default_and_what_has_no_annotation_are_taken() -> None:
    names = Registry("name")

    @names("one", about="for tests")
    def one(*, count: int = None, whatever=3) -> tuple:  # type: ignore[assignment, no-untyped-def] # noqa: RUF013
        return count, whatever

    assert names["one"].build is one
    assert one(count=None, whatever="text") == (None, "text")
    assert parse(names, "one:count=2").build() == (2, 3)
    with pytest.raises(BenchError, match="one: count='2' is not a whole number"):
        one(count="2")


def test_entries_of_a_provider_are_checked_too() -> None:
    names = Registry("name")

    def build(*, count: int = 1) -> int:
        return count

    names.more(lambda: [Entry("one", build, "for tests")])
    with pytest.raises(BenchError, match="one: count='2' is not a whole number"):
        names["one"].build(count="2")

from __future__ import annotations

from typing import Literal

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.registry import Entry, Registry, parse


def sample() -> Registry:
    registry = Registry("method")

    @registry("sift", family="local", about="keypoints")
    def sift(setup: object, *, words: int = 100, power: float = 0.5, root: bool = True, kind: Literal["a", "b"] = "a"):
        return setup, words, power, root, kind

    @registry("phash", about="a hash")
    def phash(setup: object, *, note: str = ""):
        return setup, note

    return registry


def test_options_are_read_by_their_annotation() -> None:
    spec = parse(sample(), "sift:kind=b:root=no:words=4096:power=0.25")
    assert dict(spec.options) == {"words": 4096, "power": 0.25, "root": False, "kind": "b"}
    assert spec.build("setup") == ("setup", 4096, 0.25, False, "b")


@pytest.mark.parametrize("name", [None, 3, ["sift"]])
def test_a_name_that_is_no_text_is_unknown(name: object) -> None:
    with pytest.raises(BenchError, match=r"unknown method .*; known are phash, sift"):
        sample()[name]  # type: ignore[index]


def test_the_canonical_name_does_not_depend_on_the_order_of_options() -> None:
    registry = sample()
    assert str(parse(registry, "sift:root=no:words=7")) == str(parse(registry, " sift:words=7:root=false "))
    assert str(parse(registry, "sift")) == "sift"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sifd", "unknown method 'sifd'; did you mean 'sift'"),
        ("SIFT", "did you mean 'sift'"),
        ("zzzz", "unknown method 'zzzz'; known are phash, sift"),
        ("", "unknown method ''"),
        ("sift:wrods=4", "unknown option of sift 'wrods'; did you mean 'words'"),
        ("sift:words=many", "'many' is not a whole number"),
        ("sift:power=x", "'x' is not a finite number"),
        ("sift:power=nan", "power='nan' is not a finite number"),
        ("sift:power=-inf", "power='-inf' is not a finite number"),
        ("sift:power=1e999", "power='1e999' is not a finite number"),
        ("sift:root=perhaps", "neither true nor false"),
        ("sift:kind=c", "not one of a, b"),
        ("sift:words", "write sift:key=value"),
        ("sift:words=", "write sift:key=value"),
        ("sift:words=1:words=2", "given twice"),
    ],
)
def test_mistakes_get_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence.replace("(", r"\(")) as caught:
        parse(sample(), text)
    assert "\n" not in str(caught.value)


def test_duplicates_are_refused() -> None:
    registry = sample()
    with pytest.raises(ValueError, match="registered twice"):
        registry("sift", about="again")(lambda: None)


def test_providers_run_only_when_needed_and_never_shadow_own_entries() -> None:
    registry = sample()
    calls = []

    @registry.more
    def provider():
        calls.append(1)
        return [Entry("resnet50", lambda: "net", "a network"), Entry("sift", lambda: "other", "not this one")]

    assert registry["sift"].about == "keypoints"
    assert calls == []
    assert registry["resnet50"].about == "a network"
    assert "resnet50" in registry
    assert [entry.name for entry in registry.own()] == ["sift", "phash"]
    assert {entry.name for entry in registry} == {"sift", "phash", "resnet50"}
    assert registry["sift"].about == "keypoints"
    assert len(calls) == 1


def test_options_mean_what_the_docstrings_say_under_args() -> None:
    def shared(*, size: int, root: bool) -> None:
        """What several have in common.

        Args:
            size: of the image, with a
                second line: and a colon.
            root: take the root.

        Raises:
            ValueError: never.
        """

    registry = Registry("method")

    @registry("sift", about="keypoints", shares=shared)
    def sift(setup: object, *, size: int = 1, root: bool = True, bare: int = 0) -> None:
        """One of them.

        Args:
            setup: no option.
            root: its own meaning.
        """

    assert registry["sift"].meanings == {
        "size": "of the image, with a second line: and a colon.",
        "root": "its own meaning.",
    }
    assert sample()["sift"].meanings == {}

"""What is tried next differs in one thing, can be built, and puts together what helped."""

from __future__ import annotations

import pytest

from retrieval_bench.core import Setup
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.methods.pipeline import refuse_wrong_options
from retrieval_bench.registry import fill
from retrieval_bench.tuning.moves import changed, changes_of, joins_of, sizes_of, together_of, usable, values_of

fill()


def names(methods: object) -> list[str]:
    return [str(method) for method in methods]  # type: ignore[attr-defined]


def test_a_change_of_one_thing_at_a_time() -> None:
    found = names(changes_of(parse_method("sift")))
    for wanted in ("sift:encode=vlad", "sift:colour=opponent", "sift:upright=true", "sift@trim", "sift+reciprocal"):
        assert wanted in found
    assert "sift:whiten=512" in found
    assert not any("weights" in name or "fit_images" in name for name in found)
    assert "sift:keypoints=1000" in names(sizes_of(parse_method("sift")))
    joined = names(changes_of(parse_method("sift+color")))
    assert "sift+color+rrf" in joined
    assert "sift+color+scores" not in joined, "that is how they are joined already"


@pytest.mark.parametrize(
    ("network", "pools"),
    [
        ("resnet18", {"head", "avg", "max", "gem", "rmac"}),
        ("efficientnet_lite0", {"head", "avg", "max", "gem", "rmac"}),
        ("vit_b_16", {"head", "avg", "max", "gem", "token"}),
        ("timm:some", {"head", "avg", "max", "gem", "rmac", "token"}),
    ],
)
def test_a_network_is_tried_with_poolings_that_it_has(network: str, pools: set[str]) -> None:
    found = names(changes_of(parse_method(network)))
    assert {name.partition(":pool=")[2] for name in found if ":pool=" in name} == pools


def test_values_are_of_an_extractor_and_what_it_is_made_from() -> None:
    assert values_of(parse_method("timm:some:pool=avg:flip=yes+color:words=64")) == {
        ("timm:some", "pool", "avg"),
        ("timm:some", "flip", "True"),
        ("color:", "words", "64"),
    }


def test_an_option_that_goes_back_to_its_default_is_not_written() -> None:
    method = parse_method("sift:upright=true")
    assert str(changed(method, 0, {"upright": False})) == "sift"


def test_what_helped_alone_is_put_together_the_best_first() -> None:
    base = parse_method("sift+color")
    better = [
        parse_method(text)
        for text in ("sift:colour=opponent+color", "sift:colour=grey+color", "sift+color:words=64", "sift+color+qe=5")
    ]
    assert str(together_of(base, better)) == "sift:colour=opponent+color:words=64"


def test_methods_of_different_families_are_joined_in_one_order() -> None:
    methods = [parse_method(text) for text in ("color:words=64", "sift+qe=5", "phash", "sift")]
    assert names(joins_of(methods)) == [
        "color:words=64+sift",
        "color:words=64+phash",
        "sift+phash",
        "color:words=64+sift+phash",
    ]


@pytest.mark.parametrize(
    ("text", "wanted"), [("sift:encode=vlad", True), ("oracle@trim", False), ("hog:block=4", True)]
)
def test_options_that_do_not_go_together_are_not_tried(text: str, wanted: bool) -> None:
    assert usable(parse_method(text), Setup(), refuse_wrong_options) is wanted

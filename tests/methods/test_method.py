from __future__ import annotations

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.registry import fill

fill()


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("sift", "sift"),
        ("sift + color", "sift+color"),
        ("sift:words=64+color:side=64+rrf:constant=5", "sift:words=64+color:side=64+rrf:constant=5"),
        ("phash+verify=50:least=7+qe:n=3", "phash+verify=50:least=7+qe=3"),
        ("color+verify:ratio=0.7:shortlist=20", "color+verify=20:ratio=0.7"),
        ("sift+color+reciprocal", "sift+color+reciprocal"),
        ("resnet18+sift+vote+qe=10", "resnet18+sift+vote+qe=10"),
        ("sift@trim", "sift@trim"),
        ("sift : words=64 @ trim : tolerance=5 @contrast", "sift:words=64@trim:tolerance=5@contrast"),
        ("sift@trim+sift+rrf+verify=5", "sift@trim+sift+rrf+verify=5"),
        ("onnx:me@home/model@v2.onnx@trim", "onnx:me@home/model@v2.onnx@trim"),
    ],
)
def test_what_is_read_is_written_in_one_way(text: str, canonical: str) -> None:
    method = parse_method(text)
    assert str(method) == canonical
    assert str(parse_method(canonical)) == canonical


def test_the_parts_of_a_method() -> None:
    method = parse_method("sift+color+rrf+verify=20+qe")
    assert [str(member) for member in method.members] == ["sift", "color"]
    assert str(method.join) == "rrf"
    assert [str(step) for step in method.steps] == ["verify=20", "qe"]
    assert method.family == "fusion"
    assert not method.plain
    assert method.resolved["verify=20"]["shortlist"] == 20
    assert method.resolved["qe"] == {"n": 5, "alpha": 1.0}


def test_one_extractor_alone_is_what_it_was() -> None:
    method = parse_method("phash:size=16")
    assert method.plain
    assert method.family == "hash"
    assert method.resolved == {"size": 16}
    assert parse_method("phash+verify").family == "hash"


def test_a_cleaned_extractor_is_plain_of_its_family_and_says_all_options() -> None:
    method = parse_method("phash@trim:least=0.5@denoise")
    assert method.plain
    assert method.family == "hash"
    assert method.resolved == {
        "size": 8,
        "cleaning": ["trim:tolerance=12:least=0.5", "denoise:by=bilateral:strength=0.0:radius=3"],
    }
    assert method != parse_method("phash")
    assert method.members[0] != parse_method("phash").members[0]


def test_a_network_anywhere_makes_it_deep() -> None:
    assert parse_method("sift+resnet18").deep
    assert not parse_method("sift+color").deep


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sift++color", "a name is missing beside a \\+"),
        ("+sift", "a name is missing beside a \\+"),
        ("", "a name is missing"),
        ("verify=100", "names nothing to extract; write e.g. sift\\+verify=100"),
        ("sift+verfy=100", "did you mean 'verify'"),
        ("sift+colour", "did you mean 'color'"),
        ("sift+sift", "sift is in it twice"),
        ("sift+rrf", "joins several methods and here is one"),
        ("sift+color+rrf+vote", "vote must come once"),
        ("sift+color+qe+rrf", "rrf must come once, after the methods and before re-ranking"),
        ("sift+qe+color", "color must stand before"),
        ("sift+rrf+color", "color must stand before"),
        ("sift=5", "sift takes no value"),
        ("sift+verify=many", "'many' is not a whole number"),
        ("sift+verify=5:shortlist=6", "option 'shortlist' is given twice"),
        ("sift+verify=", "is not an option"),
        ("sift+qe=3:beta=2", "unknown option of qe 'beta'"),
        ("sift@trimm", "unknown cleaning 'trimm'; did you mean 'trim'"),
        ("sift@trim=5", "trim takes no value; write trim:key=value"),
        ("sift@trim:side=5", "unknown option of trim 'side'"),
        ("sift@denoise:by=magic", "by='magic' is not one of bilateral, nlmeans"),
        ("color,phash", "'color,phash' names several methods, and one is wanted here; name one"),
        ("sift+verify@trim=100", "verify cleans nothing; write @ behind an extractor"),
        ("sift+color+rrf@trim", "rrf cleans nothing; write @ behind an extractor"),
        ("sift@trim+sift@trim", "sift@trim is in it twice"),
        ("@trim", "a name is missing"),
    ],
)
def test_mistakes_get_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence) as caught:
        parse_method(text)
    assert "\n" not in str(caught.value)

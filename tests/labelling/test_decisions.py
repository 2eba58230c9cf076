"""The log of decisions: it only grows, half a line is no line, and it knows its images."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.labelling.decisions import DecidedImage, DecisionLog, DecisionsOf

OF = DecisionsOf(version="1", dataset="shop", images=3, fingerprint="a" * 64)


def one(item: str, label: str = "cup") -> tuple[DecidedImage, ...]:
    return (DecidedImage(id=item, label=label, sure=0.5),)


def test_taking_back_is_a_further_line(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "made" / "log.jsonl", OF)
    assert not log.path.exists()
    log.add("label", "person", one("a"), "hat")
    log.add("label", "machine", (*one("b"), *one("c")))
    before = log.path.read_bytes()
    undone = log.undo()
    assert undone is not None
    assert [item.id for item in undone.items] == ["b", "c"]
    assert log.path.read_bytes().startswith(before)
    again = DecisionLog(log.path, OF)
    assert [item.id for held in again.holding() for item in held.items] == ["a"]
    assert again.undo() is not None
    assert again.undo() is None
    assert len(log.path.read_text().splitlines()) == 1 + 4


def test_half_a_line_is_cut_off(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.jsonl", OF)
    log.add("skip", "person", one("a", ""))
    with log.path.open("ab") as file:
        file.write(b'{"number":2,"at":"20')
    again = DecisionLog(log.path, OF)
    again.add("skip", "person", one("b", ""))
    assert [held.number for held in DecisionLog(log.path, OF).holding()] == [1, 2]


@pytest.mark.parametrize("there", [b"", OF.model_dump_json().encode()[:20], OF.model_dump_json().encode()])
def test_a_log_without_a_whole_line_is_empty(tmp_path: Path, there: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(there)
    log = DecisionLog(path, OF)
    assert log.decisions == []
    log.add("skip", "person", one("a", ""))
    assert [held.number for held in DecisionLog(path, OF).holding()] == [1]
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("there", [b"hello", b"\n", b'{"format":1,"version":"another"'])
def test_another_file_without_a_whole_line_is_refused_and_left_alone(tmp_path: Path, there: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(there)
    with pytest.raises(BenchError, match="is no list of decisions"):
        DecisionLog(path, OF)
    assert path.read_bytes() == there


def test_two_programs_do_not_count_from_the_same_number(tmp_path: Path) -> None:
    first, second = (DecisionLog(tmp_path / "log.jsonl", OF) for _ in range(2))
    first.add("skip", "person", one("a", ""))
    with pytest.raises(BenchError, match="changed by another program, so nothing was noted"):
        second.add("skip", "person", one("b", ""))
    first.add("skip", "person", one("c", ""))
    assert [held.number for held in DecisionLog(first.path, OF).holding()] == [1, 2]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text.replace("a" * 64, "b" * 64), "other images"),
        (lambda text: text.replace('"number":1', '"number":4'), "changed by hand"),
        (lambda text: "hello\n", "no list of decisions"),
        (lambda text: text.replace('"by":"person"', '"by":"dog"'), "no list of decisions"),
    ],
)
def test_what_is_no_log_of_these_images_is_refused(tmp_path: Path, change: object, sentence: str) -> None:
    log = DecisionLog(tmp_path / "log.jsonl", OF)
    log.add("skip", "person", one("a", ""))
    log.path.write_text(change(log.path.read_text()))  # type: ignore[operator]
    with pytest.raises(BenchError, match=sentence):
        DecisionLog(log.path, OF)

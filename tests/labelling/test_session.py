"""Labelling as it goes on: decisions, what comes next, taking back, going on later, and the list that comes out."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.datasets.manifest import manifest
from retrieval_bench.labelling.measure import typing_effort
from retrieval_bench.labelling.output import write_list
from retrieval_bench.labelling.session import LabellingSession
from tests.support.half_labelled import EACH, KNOWN, LABELS, half_labelled_at, pool_at, session_at

OPEN = LABELS * (EACH - KNOWN)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return half_labelled_at(tmp_path / "shop")


@pytest.fixture
def session(shop: Path, tmp_path: Path) -> LabellingSession:
    return session_at(shop, tmp_path / "log.jsonl")


def test_each_image_is_shown_with_the_label_that_it_has_in_truth(session: LabellingSession) -> None:
    assert session.standing().open == OPEN
    seen = []
    while (one := session.next()) is not None:
        assert one.candidates[0].label == f"product-{one.id[0]}"
        assert 0 <= one.sure <= 1
        assert session.label_of(one.evidence[0]) == one.candidates[0].label
        seen.append(one.id)
        session.decide(one.id, "label", one.candidates[0].label)
    assert len(set(seen)) == len(seen) == OPEN
    assert session.standing().person == OPEN


def test_what_is_taken_back_comes_next(session: LabellingSession, shop: Path) -> None:
    first, second = session.next(), None
    assert first is not None
    session.decide(first.id, "label", "  a   new\tone ")
    assert session.label_of(first.row) == "a new one"
    second = session.next()
    assert second is not None
    assert second.id != first.id
    session.undo()
    assert session.next() == replace(first, candidates=session.proposal(first.row).candidates)
    assert session.names() == list(session.pool.label_names)


@pytest.mark.parametrize(("before", "after"), [('"id":"', '"id":"no-'), ('"label":"a cup"', '"label":""')])
def test_a_log_with_decisions_that_cannot_be_is_refused(
    session: LabellingSession, shop: Path, before: str, after: str
) -> None:
    first = session.next()
    assert first is not None
    session.decide(first.id, "label", "a cup")
    session.log.path.write_text(session.log.path.read_text().replace(before, after))
    with pytest.raises(BenchError, match=r"decision 1 is of .* it was changed by hand"):
        session_at(shop, session.log.path)


def test_what_is_skipped_comes_last(session: LabellingSession) -> None:
    first = session.next()
    assert first is not None
    session.decide(first.id, "skip")
    seen = set()
    while (one := session.next()) is not None and one.id != first.id:
        session.decide(one.id, "nothing")
        seen.add(one.id)
    assert len(seen) == OPEN - 1
    assert one is not None
    assert session.standing().skipped == 1


def test_it_goes_on_where_it_was_ended(session: LabellingSession, shop: Path) -> None:
    first = session.next()
    assert first is not None
    session.decide(first.id, "label", "product-3")
    session.accept_confident()
    again = session_at(shop, session.log.path)
    assert again.standing() == session.standing()
    assert again.label_of(first.row) == "product-3"


def test_the_sure_ones_are_accepted_and_taken_back_as_one(session: LabellingSession) -> None:
    rows = session.confident()
    assert session.accept_confident() == len(rows) > OPEN / 2
    assert {session.by[row] for row in rows} == {"machine"}
    assert session.accept_confident() == 0
    session.undo()
    assert session.standing().open == OPEN


def test_the_list_is_read_as_a_manifest(session: LabellingSession, shop: Path) -> None:
    first = session.next()
    assert first is not None
    session.decide(first.id, "nothing")
    taken = session.accept_confident()
    out = shop.with_name("labelled.csv")
    written = write_list(session, out)
    assert (written.given, written.machine, written.nothing) == (LABELS * KNOWN, taken, 1)
    assert written.left_out == OPEN - taken - 1
    with out.open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    machine = [row for row in rows.values() if row["labelled_by"] == "machine"]
    assert all(row["label"] == f"product-{row['id'][0]}" and float(row["confidence"]) > 0.5 for row in machine)
    assert rows[first.id]["label"] == ""
    assert rows["0-0.png"]["colour"] == "c0"
    dataset = manifest(out)
    assert sum(map(len, dataset.splits.values())) == written.rows
    assert dataset.label_count == LABELS
    assert len(write_list(session, out, keep_open=True).notices) == 0
    assert len(out.read_text().splitlines()) == 1 + LABELS * EACH
    again = pool_at(out)
    assert (again.known < 0).sum() == OPEN - taken


def test_an_open_image_of_train_is_left_out_and_a_split_stays(tmp_path: Path) -> None:
    shop = half_labelled_at(tmp_path / "shop", more="train")
    session = session_at(shop, tmp_path / "log.jsonl")
    written = write_list(session, tmp_path / "out" / "labelled.csv", keep_open=True)
    assert written.left_out == OPEN
    assert "--allow-outside" in written.notices[0]
    assert (tmp_path / "out" / "labelled.csv").read_text().splitlines()[1].startswith("../shop/0-0.png,product-0,")
    with pytest.raises(BenchError, match=r"is a \.csv file"):
        write_list(session, tmp_path / "labelled.parquet")


def test_a_wrong_label_is_a_suspect_until_a_person_keeps_or_changes_it(tmp_path: Path) -> None:
    shop = half_labelled_at(tmp_path / "shop")
    text = shop.read_text().replace("0-1.png,product-0", "0-1.png,product-3").replace("1-1.png,product-1", "1-1.png,x")
    shop.write_text(text)
    session = session_at(shop, tmp_path / "log.jsonl")
    one = session.next(of_suspects=True)
    assert one is not None
    assert (one.id, one.given, one.candidates[0].label) == ("0-1.png", "product-3", "product-0")
    session.decide(one.id, "keep")
    assert session.next(of_suspects=True) is None
    session.undo()
    session.decide(one.id, "label", "product-0")
    assert session.suspicious == []
    assert session.standing().person == 1


def test_bad_decisions_are_one_sentence(session: LabellingSession) -> None:
    for item, do, label, sentence in (
        ("nobody", "skip", "", "no image 'nobody'"),
        ("0-0.png", "label", " ", "a label is missing"),
        ("0-0.png", "label", "x" * 201, "too long"),
        ("0-0.png", "label", "(distractor)", "cannot be written"),
    ):
        with pytest.raises(BenchError, match=sentence.replace("(", r"\(")):
            session.decide(item, do, label)  # type: ignore[arg-type]
    assert session.log.decisions == []


def test_how_much_is_typed_until_a_label_comes_first() -> None:
    """Apple: a, Enter. Apricot: apr, Enter. Bean: b, Enter. What begins like the one before it is typed whole."""
    assert typing_effort(["apricot", "Apple", "bean", "beans"]).tolist() == [4, 2, 2, 6]


def test_a_shop_without_any_label_begins_with_what_a_person_types(shop: Path, tmp_path: Path) -> None:
    lines = shop.read_text().splitlines()
    shop.write_text("\n".join([lines[0], *(f"{line.split(',')[0]},," for line in lines[1:])]) + "\n")
    session = session_at(shop, tmp_path / "other.jsonl")
    for _ in range(12):
        one = session.next()
        assert one is not None
        session.decide(one.id, "label", f"product-{one.id[0]}")
    assert session.standing().person == 12
    assert session.confidence.threshold is None
    one = session.next()
    assert one is not None
    assert one.candidates
    write_list(session, shop.with_name("first.csv"))
    with pytest.raises(BenchError, match="no image has a label by now"):
        write_list(session_at(shop, tmp_path / "none.jsonl"), shop.with_name("none.csv"))

"""Leaderboards of records with planted orders: ranks, what carries over, what is said of what is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval_bench.choosing import board_page, board_text
from retrieval_bench.choosing.dataset_properties import colourfulness, looked_at, roughness
from retrieval_bench.choosing.leaderboard import EVERYWHERE, OPEN, SOMEWHERE, TURNS, Leaderboard, leaderboard
from retrieval_bench.core import BenchError, NotComparable
from retrieval_bench.records.files import save
from retrieval_bench.report.evidence import Evidence
from tests.support.command import call
from tests.support.planted import ABOUT, costs, planted
from tests.support.records import failed
from tests.support.shop import shop

CLUSTERS = np.repeat(np.arange(30), 2)
FAMILIES = {"sift": "local", "color": "color", "phash": "hash"}


def share(of: float, seed: int) -> np.ndarray:
    """Right in exactly this share of the products, other ones for each seed."""
    order = np.random.default_rng(seed).permutation(30)
    return (order < round(30 * of))[CLUSTERS].astype(float)


def dataset(number: int, shares: Mapping[str, float], **changes: Any) -> Evidence:
    right = {method: share(of, 100 * number + place) for place, (method, of) in enumerate(shares.items())}
    facts = {"name": f"shop{number}", "spec": f"shop{number}", "fingerprint": f"{number:02x}" * 32}
    facts |= {"labels": 30 + number} | changes.pop("dataset", {})
    found = planted(right, CLUSTERS, dict.fromkeys(shares, costs(10)), f"r{number}", dataset=facts, **changes)
    rows = tuple(row.model_copy(update={"family": FAMILIES.get(row.method, "local")}) for row in found.record.rows)
    return Evidence(found.name, found.record.model_copy(update={"rows": rows}), found.arrays)


def many(n: int) -> list[Evidence]:
    """sift and color far above phash, and each above the other in turns."""
    turns = [{"sift": 0.9, "color": 0.4}, {"sift": 0.4, "color": 0.9}]
    return [dataset(number, {**turns[number % 2], "phash": 0.05}) for number in range(n)]


def state_of(board: Leaderboard, *methods: str) -> str:
    return next(pair.state for pair in board.pairs if {pair.first, pair.second} == set(methods))


def test_what_turns_around_and_what_carries_over() -> None:
    board = leaderboard(many(8))
    assert set(board.methods[:2]) == {"sift", "color"}
    assert state_of(board, "sift", "color") == TURNS
    assert state_of(board, "sift", "phash") == EVERYWHERE
    assert board.wins == {"sift": 4, "color": 4, "phash": 0}
    assert board.tests.groups[board.methods[2]] not in board.tests.groups[board.methods[0]]
    told = board_text.paragraph(board)
    assert "1 turn around" in told
    assert "2 of 3 pairs differ significantly" in told
    assert "is better than" in told


def test_a_tie_is_open_and_a_sometimes_is_never_contradicted() -> None:
    board = leaderboard(
        [
            dataset(0, {"sift": 0.9, "color": 0.3, "phash": 0.5}),
            dataset(1, {"sift": 0.5, "color": 0.5, "phash": 0.5}),
        ]
    )
    assert state_of(board, "sift", "color") == SOMEWHERE
    assert state_of(board, "color", "phash") == OPEN
    assert board.wins == {"sift": 2, "phash": 1, "color": 1}


def test_two_datasets_draw_no_line() -> None:
    board = leaderboard(many(2))
    assert "Over 2 datasets nothing can be concluded" in board_text.paragraph(board)
    page = board_page.render(board)
    assert "nothing can be concluded over datasets" in page
    assert 'class="joint"' not in page
    assert 'class="joint"' in board_page.render(leaderboard(many(8)))


def test_what_is_not_in_all_datasets_is_told() -> None:
    first, second = many(2)
    more = dataset(0, {"sift": 0.9, "color": 0.4, "phash": 0.05, "hog": 0.5}, more=[failed("orb")])
    board = leaderboard([more, second])
    assert board.absent == {"hog": ("shop1",)}
    said = " ".join(board_text.text(board).split())
    assert "Not ranked, as not in shop1: hog." in said
    assert "orb failed in the run (shop0)" in said
    alone = dataset(2, {"sift": 0.9, "hog": 0.5})
    with pytest.raises(BenchError, match=r"two methods that all 2 datasets have.*color is not in shop2"):
        leaderboard([first, alone])
    with pytest.raises(BenchError, match="at least two datasets"):
        leaderboard([first])


def test_records_of_one_dataset_are_one_dataset() -> None:
    first, second = many(2)
    other = dataset(0, {"sift": 0.9, "hog": 0.5}, created="2025-01-01T00:00:00Z")
    again = dataset(1, {"sift": 0.2, "hog": 0.5}, created="2025-01-01T00:00:00Z")
    board = leaderboard([first, other, second, again])
    assert set(board.methods) == {"sift", "color", "phash", "hog"}
    assert len(board.datasets) == 2
    assert any("sift has 0.4000 and 0.2000 in two records of shop1" in one for one in board.warnings)
    mixed = dataset(0, {"sift": 0.9}, settings={"seed": 1})
    with pytest.raises(NotComparable, match=r"r0 and r0 cannot be mixed, .*seed"):
        leaderboard([first, mixed, second])


def test_what_does_not_mean_the_same_is_refused() -> None:
    first, _ = many(2)
    other = ABOUT.model_copy(update={"definition": "another"})
    with pytest.raises(NotComparable, match=r"the definition of map@r differs between records of shop0 and shop5"):
        leaderboard([first, dataset(5, {"sift": 0.5, "color": 0.2}, metrics={"map@r": other, "accuracy": ABOUT})])
    with pytest.raises(NotComparable, match="what counts as relevant"):
        leaderboard([first, dataset(5, {"sift": 0.5, "color": 0.2}, settings={"relevance": "category"})])


def test_splits_of_one_source_are_told_as_such() -> None:
    first, second = many(2)
    twin = dataset(7, {"sift": 0.5, "color": 0.2}, dataset={"name": "shop0", "spec": "shop0:queries=val"})
    board = leaderboard([first, second, twin])
    assert any("shop0 and shop0:queries=val are of one source" in one for one in board.warnings)
    folders = [
        dataset(number, {"sift": 0.5, "color": 0.2}, dataset={"name": "folder", "spec": "folder", "root": root})
        for number, root in enumerate(("/data/cups", "/data/hats"))
    ]
    board = leaderboard(folders)
    assert [one.name for one in board.datasets] == ["cups", "hats"]
    assert board.warnings == ()


def test_other_options_under_one_name_are_told() -> None:
    first, second = many(2)
    for place, one in enumerate((first, second)):
        rows = tuple(row.model_copy(update={"params": {"words": 64 * (place + 1)}}) for row in one.record.rows)
        changed = one.record.model_copy(update={"rows": rows})
        (first, second)[place].__dict__["record"] = changed
    told = leaderboard([first, second]).warnings
    assert "sift had not the same options in all datasets (words differ)." in told


def test_a_dataset_without_comparisons_counts_for_ranks_alone() -> None:
    silent = dataset(3, {"sift": 0.9, "color": 0.3, "phash": 0.1}, compared=False)
    rows = tuple(row.model_copy(update={"intervals": {}}) for row in silent.record.rows)
    silent = Evidence("silent", silent.record.model_copy(update={"rows": rows}))
    board = leaderboard([*many(2), silent])
    assert any("Of shop3 it is not known" in one for one in board.warnings)
    assert state_of(board, "sift", "phash") == SOMEWHERE


def test_strength_follows_a_planted_property() -> None:
    found = [
        dataset(number, {"sift": 0.3 + 0.07 * number, "color": 0.95 - 0.07 * number, "phash": 0.1})
        for number in range(9)
    ]
    board = leaderboard(found)
    rho = {one.family: one.rho for one in board.strengths if one.property.key == "products"}
    assert rho["local"] == pytest.approx(1.0)
    assert rho["color"] == pytest.approx(-1.0)
    chance = {one.family: one.p_holm for one in board.strengths if one.property.key == "products"}
    assert all(one is not None and one < 0.01 for one in (chance["local"], chance["color"]))
    assert all(one.rho is None for one in leaderboard(found[:3]).strengths)


def test_colour_and_texture_of_images() -> None:
    grey = np.full((40, 40, 3), 90, np.uint8)
    assert colourfulness(grey) == 0.0
    red = grey.copy()
    red[:, :20] = (255, 0, 0)
    assert colourfulness(red) > 45
    checks = (np.indices((40, 40)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert roughness(grey[..., 0]) == 0.0
    assert roughness(checks) == pytest.approx(np.hypot(255, 255))
    assert roughness(np.zeros((1, 9), np.uint8)) == 0.0
    seen = looked_at(shop(), 5)
    assert seen["colour"] > 15
    assert seen["texture"] > 2


def test_the_command_writes_each_format(tmp_path: Path) -> None:
    places = []
    for one in many(5):
        save(one.record, tmp_path / one.name, {"query_ids": np.array([])})
        places.append(tmp_path / one.name)
    done = call("leaderboard", *places, "--json")
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert data["concluded"]
    assert data["datasets_needed"] == 7
    assert [one["mean_rank"] for one in data["methods"]] == [1.4, 1.6, 3.0]
    shown = call("leaderboard", *places)
    assert max(map(len, shown.stdout.splitlines())) <= 80
    for suffix, begins in (("html", "<!DOCTYPE html>"), ("md", "# Leaderboard over 5 datasets")):
        out = tmp_path / f"board.{suffix}"
        assert call("leaderboard", *places, "--out", out).exit_code == 0
        assert out.read_text("utf-8").startswith(begins)
    refused = call("leaderboard", places[0])
    assert refused.exit_code == 2
    assert "`report` and `recommend` take records of one dataset" in refused.stderr
    assert call("leaderboard", *places, "--out", tmp_path).exit_code == 2
    for words, sentence in (
        (("--out", tmp_path / "board.pdf"), ".pdf is no form"),
        (("--json", "--format", "md"), "give one of them"),
    ):
        refused = call("leaderboard", *places, *words)
        assert refused.exit_code == 2
        assert sentence in refused.stderr
    assert not (tmp_path / "board.pdf").exists()

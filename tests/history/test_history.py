"""Histories of records with planted changes: what is marked, what is joined, and the files for a front page."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.history import history_page, history_text
from retrieval_bench.history.change_points import level_changes
from retrieval_bench.history.front_page import badge, write_front_page
from retrieval_bench.history.timeline import History, Line, history
from retrieval_bench.records.files import save
from retrieval_bench.registry import METRICS
from tests.support.command import call
from tests.support.paths import ROOT
from tests.support.planted import ABOUT, costs, planted

CLUSTERS = np.repeat(np.arange(30), 2)
GOOD = (np.arange(30) < 24)[CLUSTERS].astype(float)
POOR = (np.arange(30) < 12)[CLUSTERS].astype(float)
NEAR = np.where(np.arange(60) == 0, 0.0, GOOD)


def keep(home: Path, day: int, right: Mapping[str, np.ndarray], ms: float = 10.0, **changes: Any) -> Path:
    rankings = changes.pop("rankings", True)
    price = costs(10, changes.pop("size", 100), end_to_end_p50=ms)
    commit = {"commit": f"{day:02}" * 20, **changes.pop("environment", {})}
    made = planted(
        right, CLUSTERS, dict.fromkeys(right, price), rankings=rankings, created=f"2026-01-{day:02}T00:00:00Z",
        environment=commit, **changes,
    )  # fmt: skip
    save(made.record, home / f"day-{day:02}", dict(made.arrays) if rankings else {"query_ids": np.array([])})
    return home


def line(found: History, method: str, figure: str) -> Line:
    return next(one for one in found.timelines[0].lines if (one.method, one.figure.key) == (method, figure))


# --- levels -----------------------------------------------------------------------------------------------------------


def test_a_planted_step_is_found_where_it_is() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(1, 0.02, 9), rng.normal(1.2, 0.02, 8), rng.normal(1.0, 0.02, 9)])
    found = level_changes(values, 0.05)
    assert [one.at for one in found] == [9, 17]
    assert found[0].before == pytest.approx(1.0, abs=0.02)
    assert found[0].after == pytest.approx(1.2, abs=0.02)
    assert all(one.p <= 0.01 for one in found)
    assert level_changes(values, 0.5) == []


def test_few_lines_without_a_change_have_a_false_one() -> None:
    rng = np.random.default_rng(1)
    false = sum(bool(level_changes(rng.normal(size=12), 0.0, permutations=199)) for _ in range(200))
    assert false <= 8


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0, 3.0], [0.3] * 20])
def test_what_can_hold_no_change(values: list[float]) -> None:
    assert level_changes(np.array(values), 0.0) == []


# --- timelines --------------------------------------------------------------------------------------------------------


def test_a_cost_of_nothing_has_no_line(tmp_path: Path) -> None:
    for day in range(1, 6):
        keep(tmp_path, day, {"sift": GOOD}, size=0)
    found = history(tmp_path)
    assert "bytes_per_image" not in {one.figure.key for one in found.timelines[0].lines}
    assert "5 records, 2026-01-01 to 2026-01-05, 1 method." in history_text.text(found).replace("\n", " ")


def test_a_score_that_the_same_queries_show_is_marked(tmp_path: Path) -> None:
    for day, sift in enumerate((GOOD, NEAR, POOR), start=1):
        keep(tmp_path, day, {"sift": sift, "color": GOOD})
    found = history(tmp_path)
    (change,) = line(found, "sift", "map@r").changes
    assert (change.at, change.better) == (2, False)
    assert change.how.startswith("the same queries, -0.")
    assert line(found, "color", "map@r").changes == ()
    assert "The newest record is worse in" in history_text.sentence(found.timelines[0])
    assert badge(found, "map@r") == ("map@r", "color 0.800, worse", "red")


def test_without_rankings_the_tolerance_decides(tmp_path: Path) -> None:
    for day, sift in enumerate((GOOD, NEAR, POOR), start=1):
        keep(tmp_path, day, {"sift": sift}, rankings=False)
    (change,) = line(history(tmp_path), "sift", "accuracy").changes
    assert (change.at, change.how) == (2, "more than 0.06")


def test_times_change_their_level_and_are_joined_on_one_machine(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for day in range(1, 17):
        ms = (10 if day <= 8 else 14) * rng.normal(1, 0.01)
        keep(tmp_path, day, {"sift": GOOD}, ms, environment={"processor": "old" if day <= 14 else "new"})
    found = history(tmp_path)
    times = line(found, "sift", "end_to_end_p50")
    (change,) = times.changes
    assert (change.at, change.better) == (8, False)
    assert change.p is not None
    assert [len(part) for part in times.parts] == [14, 2]
    assert times.breaks == ((14, "times of another machine, thread count or device"),)
    assert [len(part) for part in line(found, "sift", "map@r").parts] == [16]
    assert [len(part) for part in line(found, "sift", "bytes_per_image").parts] == [16]


def test_what_does_not_compare_is_not_joined(tmp_path: Path) -> None:
    keep(tmp_path, 1, {"sift": GOOD})
    keep(tmp_path, 2, {"sift": POOR}, dataset={"fingerprint": "cd" * 32})
    keep(tmp_path, 3, {"sift": GOOD}, metrics={"map@r": ABOUT.model_copy(update={"definition": "another"})},
         dataset={"fingerprint": "cd" * 32})  # fmt: skip
    quality = line(history(tmp_path), "sift", "map@r")
    assert [len(part) for part in quality.parts] == [1, 1, 1]
    assert quality.changes == ()
    assert ["fingerprint" in quality.breaks[0][1], "defined differently" in quality.breaks[1][1]] == [True, True]


def test_other_questions_have_timelines_of_their_own(tmp_path: Path) -> None:
    keep(tmp_path, 1, {"sift": GOOD})
    keep(tmp_path, 2, {"sift": POOR}, settings={"limit": 20})
    keep(tmp_path, 3, {"sift": GOOD, "color": NEAR})
    found = history(tmp_path)
    assert [one.name for one in found.timelines] == ["shop", "shop, limit 20"]
    assert found.timelines[0].methods == ("sift", "color")
    assert "One record has no history" in history_text.sentence(found.timelines[1])


def test_broken_and_unfinished_records_are_told(tmp_path: Path) -> None:
    keep(tmp_path, 1, {"sift": GOOD})
    keep(tmp_path, 2, {"sift": GOOD}, status="interrupted")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text("{")
    found = history(tmp_path)
    assert len(found.left_out) == 2
    assert len(found.timelines[0].kept) == 1
    for place, said in ((tmp_path / "nowhere", "is not a folder"), (tmp_path / "torn", "no record below it")):
        with pytest.raises(BenchError, match=said):
            history(place)
    with pytest.raises(BenchError, match="--prefer recall@7: the records have accuracy, map@r"):
        history(tmp_path, ("recall@7",))


def test_scores_that_the_rankings_contradict_are_told_and_not_drawn(tmp_path: Path) -> None:
    described = {"accuracy": ABOUT.model_copy(update={"definition": METRICS["accuracy"].facts["definition"]})}
    for day in (1, 2):
        keep(tmp_path, day, {"sift": GOOD, "color": POOR}, metrics=described)
    file = tmp_path / "day-02" / "run.json"
    file.write_text(file.read_text("utf-8").replace('"accuracy": 0.8,', '"accuracy": 0.99,'), "utf-8")
    found = history(tmp_path)
    (told,) = found.left_out
    assert told.startswith(
        f"{tmp_path / 'day-02'}: scores of sift: accuracy is 0.990000 in the record, and 0.800000 by"
    )
    assert line(found, "sift", "accuracy").parts == (((0, 0.8),),)
    assert line(found, "color", "accuracy").parts == (((0, 0.4), (1, 0.4)),)
    assert badge(found, "accuracy")[1] == "color 0.400"
    assert "| sift [contradicted] |" in write_front_page(found, tmp_path / "front", "accuracy")[2].read_text("utf-8")


def test_rankings_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    for day in (1, 2):
        keep(tmp_path, day, {"sift": GOOD})
    (tmp_path / "day-02" / "rankings.npz").write_bytes(b"PK")
    (told,) = history(tmp_path).left_out
    assert "not the rankings that run.json beside it names" in told
    assert told.endswith("; here the tolerances tell what changed")


def test_earlier_records_are_read(tmp_path: Path) -> None:
    for day in (1, 2):
        made = planted({"sift": GOOD}, CLUSTERS, {"sift": costs(10)}, created=f"2026-01-0{day}T00:00:00Z")
        save(made.record, tmp_path / "shop", {"query_ids": np.array([])}, keep_earlier=True)
    assert [one.record.created[:10] for one in history(tmp_path).timelines[0].kept] == ["2026-01-01", "2026-01-02"]


# --- what is written --------------------------------------------------------------------------------------------------


def test_the_page_draws_rings_and_breaks(tmp_path: Path) -> None:
    for day, sift in enumerate((GOOD, GOOD, POOR), start=1):
        keep(tmp_path, day, {"sift": sift}, environment={"processor": str(day)})
    page = history_page.render(history(tmp_path))
    assert 'class="ring worse"' in page
    assert "no line leads to record 2" in page
    assert ">1.5<" not in page


def test_the_files_of_a_front_page(tmp_path: Path) -> None:
    keep(tmp_path / "kept", 1, {"sift <&>": GOOD, "color": POOR})
    files = write_front_page(history(tmp_path / "kept"), tmp_path / "front", "map@r")
    assert [file.name for file in files] == ["badge.svg", "badge.json", "table.md"]
    drawn = ElementTree.fromstring(files[0].read_text("utf-8"))
    assert [one.text for one in drawn.iter() if one.tag.endswith("}text")] == ["map@r", "sift <&> 0.800"]
    endpoint = json.loads(files[1].read_text("utf-8"))
    assert endpoint == {"schemaVersion": 1, "label": "map@r", "message": "sift <&> 0.800", "color": "brightgreen"}
    assert "| color |" in files[2].read_text("utf-8")
    (tmp_path / "file").touch()
    with pytest.raises(BenchError, match=r"--front-page .* cannot be made"):
        write_front_page(history(tmp_path / "kept"), tmp_path / "file" / "front", "map@r")


def test_a_front_page_takes_no_folder_of_a_record(tmp_path: Path) -> None:
    record = keep(tmp_path / "kept", 1, {"sift": GOOD}) / "day-01"
    (record / "table.md").write_text("the table of the record")
    before = {file.name: file.read_bytes() for file in record.iterdir()}
    refused = call("history", tmp_path / "kept", "--front-page", record)
    assert refused.exit_code == 2
    told = " ".join(refused.stderr.split())
    assert "day-01: is the folder of a record, whose table.md would be lost; name another" in told
    assert {file.name: file.read_bytes() for file in record.iterdir()} == before
    (record / "run.json").rename(record / "aside.json")  # its rankings alone are still of a record
    with pytest.raises(BenchError, match="is the folder of a record"):
        write_front_page(history(keep(tmp_path / "others", 2, {"sift": GOOD})), record, "map@r")


def test_the_history_command(tmp_path: Path) -> None:
    for day, sift in enumerate((GOOD, POOR), start=1):
        keep(tmp_path, day, {"sift": sift}, environment={"processor": str(day)})
    shown = call("history", tmp_path)
    assert shown.exit_code == 0, shown.output
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "No line leads to record 2" in shown.stdout
    data = json.loads(call("history", tmp_path, "--json", "--prefer", "accuracy").stdout)
    assert data["timelines"][0]["lines"][0]["figure"] == "accuracy"
    for suffix, begins in (("html", "<!DOCTYPE html>"), ("md", "# History")):
        out = tmp_path / f"history.{suffix}"
        assert call("history", tmp_path, "--out", out, "--front-page", tmp_path / "front").exit_code == 0
        assert out.read_text("utf-8").startswith(begins)
    assert call("history", tmp_path / "nowhere").exit_code == 2


def test_the_snippets_of_the_page_are_yaml() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the development tools")
    page = (ROOT / "docs" / "history.md").read_text("utf-8")
    github, gitlab = (yaml.safe_load(one) for one in re.findall(r"```yaml\n(.*?)```", page, re.S))
    steps = github["jobs"]["retrieval"]["steps"]
    assert any("diff" in one.get("run", "") for one in steps)
    assert all(isinstance(line, str) for line in gitlab["retrieval"]["script"])

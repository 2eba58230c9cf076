"""What is called run.json and is no file: one sentence in every command that reads records."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval_bench.records.files import run_files_below, save
from tests.support.command import call
from tests.support.records import record, row

COMMANDS = {
    "convert": ("--to", "csv", "--out", "made.csv"),
    "cost": ("--images", 10),
    "diff": ("other",),
    "explain": ("--out", "made.png"),
    "history": (),
    "leaderboard": (),
    "recommend": (),
    "repeat": (),
    "report": ("--out", "made.html"),
    "serve": (),
    "show": (),
    "slices": (),
    "sweep": ("--backend", "faiss:hnsw", "--over", "ef=1,2"),
    "track": ("--to", "tensorboard:made"),
}


def a_folder(place: Path) -> str:
    (place / "run.json").mkdir(parents=True)
    return "run.json: cannot be read as a record (a folder is there, and no file); name another"


def a_link(place: Path) -> str:
    place.mkdir()
    (place / "run.json").symlink_to("nowhere.json")
    return "run.json: is a link to a file that is not there; name another record, or fix the link"


@pytest.mark.parametrize("make", [a_folder, a_link])
@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_one_sentence(command: str, make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = make(tmp_path / "odd")
    result = call(command, "odd", *COMMANDS[command])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: odd")
    assert said in " ".join(result.stderr.split())
    assert result.stderr.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["odd"]


def test_a_folder_that_is_named_itself_is_told_by_its_name(tmp_path: Path) -> None:
    said = a_folder(tmp_path / "odd")
    assert f"odd/{said}" in call("show", tmp_path / "odd" / "run.json").stderr


@pytest.mark.parametrize("make", [a_folder, a_link])
def test_among_many_records_it_is_left_out_and_told(tmp_path: Path, make) -> None:
    save(record(row()), tmp_path / "good", {})
    said = make(tmp_path / "odd")
    shown = call("history", tmp_path)
    assert shown.exit_code == 0, shown.output
    assert said in " ".join(shown.output.split())


def test_records_below_a_folder_are_found_once(tmp_path: Path) -> None:
    a_folder(tmp_path / "odd")
    a_link(tmp_path / "gone")
    save(record(row()), tmp_path / "within" / "run.json", {})  # a folder of this name that holds a record
    save(record(row()), tmp_path / ".hidden", {})
    assert [str(file.relative_to(tmp_path)) for file in run_files_below(tmp_path)] == [
        "gone/run.json",
        "odd/run.json",
        "within/run.json/run.json",
    ]


def test_a_dry_run_refuses_a_folder_in_the_place_of_the_record(tmp_path: Path) -> None:
    a_folder(tmp_path / "odd")
    result = call("run", "--dry-run", "--methods", "phash", "--limit", 3, "--out", tmp_path / "odd")
    assert result.exit_code == 2
    assert "odd: run.json is a folder there; name another" in result.stderr

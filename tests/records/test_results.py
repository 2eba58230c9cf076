from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from retrieval_bench.core import BenchError
from retrieval_bench.records.environment import environment
from retrieval_bench.records.files import RANKINGS_FILE, RUN_FILE, claimed, load, load_rankings, save
from retrieval_bench.system.files import write_whole
from tests.support.paths import ROOT
from tests.support.records import failed, record, row

ARRAYS = {"sift:words=8/indices": np.arange(6, dtype=np.int32).reshape(2, 3), "query_ids": np.array(["a", "ü"])}


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    saved = save(record(row(), failed()), tmp_path, ARRAYS)
    assert load(tmp_path) == load(tmp_path / RUN_FILE) == saved
    arrays = load_rankings(tmp_path, saved)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_the_same_arrays_give_the_same_bytes(tmp_path: Path) -> None:
    one = save(record(row()), tmp_path / "one", ARRAYS)
    other = save(record(row()), tmp_path / "other", dict(ARRAYS))
    assert one.rankings == other.rankings
    assert (tmp_path / "one" / RANKINGS_FILE).read_bytes() == (tmp_path / "other" / RANKINGS_FILE).read_bytes()


def test_nan_never_reaches_a_record() -> None:
    with pytest.raises(ValidationError):
        record(row(scores={"accuracy": float("nan")}))


def test_other_peoples_rankings_are_refused(tmp_path: Path) -> None:
    saved = save(record(row()), tmp_path, ARRAYS)
    save(record(row()), tmp_path / "other", {"x": np.zeros(3)})
    os.replace(tmp_path / "other" / RANKINGS_FILE, tmp_path / RANKINGS_FILE)
    with pytest.raises(BenchError, match="not the rankings that"):
        load_rankings(tmp_path, saved)
    (tmp_path / RANKINGS_FILE).unlink()
    with pytest.raises(BenchError, match="cannot be read"):
        load_rankings(tmp_path, saved)


def damaged(change: str) -> bytes:
    whole = record(row()).to_json()
    content = json.loads(whole)
    if change == "cut":
        return whole[: len(whole) // 2].encode()
    if change == "list":
        return b"[1, 2]"
    if change == "empty":
        return b""
    if change == "binary":
        return b"\xff\xfe\x00"
    if change == "version":
        content["schema_version"] = 99
    if change == "true version":
        content["schema_version"] = True
    if change == "deep":
        return b"[" * 100_000
    if change == "long number":
        return b'{"schema_version": ' + b"1" * 5000 + b"}"
    if change == "no gallery count":
        del content["dataset"]["images"]["gallery"]
    if change == "no k":
        content["settings"]["k"] = []
    if change == "type":
        content["rows"][0]["scores"]["accuracy"] = "high"
    if change == "extra":
        content["rows"][0]["speed"] = 1
    if change == "missing":
        del content["settings"]["seed"]
    if change == "negative seed":
        content["settings"]["seed"] = -1
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("cut", "not JSON"),
        ("empty", "not JSON"),
        ("binary", "cannot be read as a record"),
        ("list", "schema_version is None"),
        ("version", "schema_version is 99"),
        ("true version", "schema_version is True"),
        ("deep", "not JSON"),
        ("long number", "not JSON"),
        ("no gallery count", "at dataset.images.gallery"),
        ("no k", "at settings.k"),
        ("type", "at rows.0.scores.accuracy"),
        ("extra", "at rows.0.speed"),
        ("missing", "at settings.seed"),
        ("negative seed", "at settings.seed"),
    ],
)
def test_an_unreadable_record_gets_a_sentence(tmp_path: Path, change: str, sentence: str) -> None:
    (tmp_path / RUN_FILE).write_bytes(damaged(change))
    with pytest.raises(BenchError, match=sentence) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_record_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no such record"):
        load(tmp_path)
    with pytest.raises(BenchError, match="no such record"):
        load(tmp_path / "nothing" / "run.json")


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.json"
    write_whole(file, b"first")

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as half:
            half.write(content[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BenchError, match="No space left on device"):
        write_whole(file, b"second")
    assert file.read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_an_out_folder_that_is_a_file_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="cannot be written"):
        save(record(row()), tmp_path / "file", ARRAYS)


def test_earlier_records_are_kept_and_stay_whole(tmp_path: Path) -> None:
    for seed in range(4):
        last = save(record(row(), settings={"seed": seed}), tmp_path, ARRAYS, keep_earlier=True)
    homes = list((tmp_path / "earlier").iterdir())
    assert sorted(load(home).settings.seed for home in homes) == [0, 1, 2]
    for home in homes:
        load_rankings(home, load(home))
    assert load(tmp_path) == last


def test_an_earlier_record_is_set_aside_with_its_tables(tmp_path: Path) -> None:
    first = save(record(row()), tmp_path, ARRAYS, {"table.md": "first"})
    save(record(row(), settings={"seed": 1}), tmp_path, ARRAYS, {"table.md": "second"}, keep_earlier=True)
    (home,) = (tmp_path / "earlier").iterdir()
    assert load(home) == first
    assert (home / "table.md").read_text() == "first"
    assert (tmp_path / "table.md").read_text() == "second"


def test_a_record_that_cannot_be_serialised_leaves_the_earlier_one_alone(tmp_path: Path) -> None:
    first = save(record(row()), tmp_path, ARRAYS)
    broken = record(row(params={"x": "\udce9"}))
    with pytest.raises(UnicodeEncodeError):
        save(broken, tmp_path, ARRAYS, keep_earlier=True)
    assert load(tmp_path) == first
    load_rankings(tmp_path, first)


def test_a_folder_is_claimed_by_one_run_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    with claimed(out):
        with pytest.raises(BenchError, match="another run is writing there"), claimed(out):
            pass
        assert (out / ".lock").exists()
    assert not out.exists()


def test_a_folder_that_cannot_be_written_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="cannot be written"), claimed(tmp_path / "file" / "out"):
        pass
    (tmp_path / "out" / "table.md").mkdir(parents=True)
    with pytest.raises(BenchError, match=r"table\.md is a folder there"), claimed(tmp_path / "out"):
        pass


def test_the_environment_names_this_machine() -> None:
    here = environment({"numpy": np.__version__}, None, "an allocator")
    assert here.cores == os.cpu_count()
    assert here.libraries["numpy"] == np.__version__
    assert here.memory_gib > 0.1
    assert here.processor
    if (ROOT / ".git").exists():
        assert here.commit is None or len(here.commit) == 40

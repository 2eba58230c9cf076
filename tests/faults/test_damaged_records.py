"""A record that anybody may have changed: exit 2 with the field's name, or shown, marked where its rankings contradict
it; never a traceback, a hang, or memory for what a file only promises."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_bench.compare.contradictions import contradictions
from retrieval_bench.core import BenchError
from retrieval_bench.records.files import MOST_BYTES, load, load_rankings
from retrieval_bench.records.schema import Rankings, Record
from retrieval_bench.records.scores import MARK
from retrieval_bench.report import table
from tests.support.command import call
from tests.support.faults import LONG, mutated
from tests.support.paths import ROOT

SCHEMA_1 = ROOT / "tests" / "records" / "schema_1"
REFERENCE = ROOT / "results" / "reference" / "products"
RUN, RANKINGS = "run.json", "rankings.npz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A record of one's own, to be damaged."""
    return shutil.copytree(SCHEMA_1, tmp_path / "record")


def change(folder: Path, path: str, value: Any) -> None:
    """Set a field of run.json, e.g. rows.0.scores.accuracy; None of type: remove it."""
    content = json.loads((folder / RUN).read_bytes())
    *way, last = path.split(".")
    at: Any = content
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at[step]
    if value is type(None):
        del at[last]
    else:
        at[last] = value
    (folder / RUN).write_text(json.dumps(content))


LACKS = type(None)


def _blurred(accuracy: float, low: float = 0.1) -> dict[str, Any]:
    reach = {"accuracy": {"low": low, "high": 0.6}}
    return {"perturbation": "blur", "severity": 1, "scores": {"accuracy": accuracy}, "intervals": reach}


def _open_set(auroc: float) -> dict[str, Any]:
    return {"answerable": 1, "unanswerable": 1, "scores": {"auroc": auroc}}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("rows.0.scores.accuracy", LACKS, "rows.0.scores lacks accuracy"),
        ("rows.0.scores", LACKS, "rows.0.scores lacks accuracy"),
        ("rows.0.status", "failed", "rows.0.error is missing"),
        ("rows.0.features.dim", -1, "at rows.0.features.dim"),
        ("rows.0.features.bytes_per_image", 10**30, "at rows.0.features.bytes_per_image"),
        ("rows.0.method", "x" * 20_000, "at rows.0.method"),
        ("rows.0.times.end_to_end_p50.value", -0.5, "at rows.0.times.end_to_end_p50.value"),
        ("rows.0.intervals.accuracy", {"low": 0.9, "high": 0.1}, "rows.0.intervals.accuracy"),
        ("rows.0.intervals.accuracy", {"low": 0.9, "high": 0.1}, "above its high one (method 'color')"),
        ("rows.0.scores.accuracy", 7.0, "rows.0.scores.accuracy is 7, which is not between 0 and 1 (method 'color')"),
        ("rows.0.scores.map@r", -0.25, "rows.0.scores.map@r is -0.25, which is not between 0 and 1 (method 'color')"),
        (
            "rows.0.scores.accuracy",
            float("nan"),
            "NaN is no number that a record can hold, at rows.0.scores.accuracy (m",
        ),
        (
            "rows.0.intervals.accuracy",
            {"low": -0.5, "high": 0.9},
            "rows.0.intervals.accuracy.low is -0.5, which is not",
        ),
        ("rows.0.times.end_to_end_p50.value", -0.5, "at rows.0.times.end_to_end_p50.value (method 'color')"),
        ("rows.0.ties", {"accuracy": {"worst": 0, "expected": 1, "best": 2}}, "rows.0.ties.accuracy.best is 2, which"),
        ("rows.0.heads", {"svm": {"scores": {"accuracy": 50}}}, "rows.0.heads.svm.scores.accuracy is 50, which is not"),
        ("rows.0.robustness", [_blurred(1.5)], "rows.0.robustness.0.scores.accuracy is 1.5, which is not between"),
        ("rows.0.robustness", [_blurred(0.5, 0.9)], "rows.0.robustness.0.intervals.accuracy has its low end above"),
        ("rows.0.open_set", _open_set(2.0), "rows.0.open_set.scores.auroc is 2, which is not between 0 and 1"),
        (
            "rows.0.by_threshold",
            {"train": {"f1": 3}},
            "rows.0.by_threshold.train.f1 is 3, which is not between 0 and 1",
        ),
        ("ceilings.accuracy", 1.5, "ceilings.accuracy is 1.5, which is not between 0 and 1"),
        ("controls", {"oracle": {"accuracy": 9}}, "controls.oracle.accuracy is 9, which is not between 0 and 1"),
        ("dataset.notices", ["x" * 1_000_000], "at dataset.notices.0"),
        ("dataset.fingerprint", "</script>", "at dataset.fingerprint"),
        ("dataset.images.query", -5, "at dataset.images.query"),
        ("settings.k", [0], "at settings.k.0"),
        ("settings.k", [10**30], "at settings.k.0"),
        ("settings.k", list(range(1, 20_000)), "at settings.k"),
        ("settings.threads", 0, "at settings.threads"),
        ("settings.seed", 10**40, "at settings.seed"),
        ("environment.cores", -1, "at environment.cores"),
        ("rankings.file", "../../../etc/passwd", "at rankings.file"),
        ("rankings.sha256", "/../../x", "at rankings.sha256"),
        ("comparisons", {"accuracy": {"pairs": [], "groups": {"ghost": "a"}}}, "comparisons.accuracy names methods"),
        ("x" * 5000, 1, "at xxxx"),
        ("\x1b[31m", 1, r"at \x1b[31m"),
        ("schema_version", "9" * 100_000, "schema_version is '999"),
        ("rows.0.params", {"a": "\ud800"}, "half a character"),
    ],
)
def test_a_field_that_no_run_writes_is_named(folder: Path, path: str, value: object, said: str) -> None:
    change(folder, path, value)
    with pytest.raises(BenchError) as caught:
        load(folder)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"schema_version": 1, "x": NaN}', "NaN is no number"),
        ('{"schema_version": 1, "x": -Infinity}', "-Infinity is no number"),
        ('{"schema_version": 1, "x": 1e999}', "1e999 is no number"),
        ('{"x": [' + "0," * 4_000_000 + "0]}", "more than 3,000,000 values"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_json_that_no_record_is(folder: Path, text: str, said: str) -> None:
    (folder / RUN).write_text(text)
    with pytest.raises(BenchError, match=said):
        load(folder)


def test_a_rounding_above_one_is_a_score(folder: Path) -> None:
    change(folder, "rows.0.scores.map@r", 1.0000000000000002)
    assert load(folder).rows[0].scores["map@r"] > 1


def test_a_score_beyond_its_range_is_told_without_rankings_and_left_out_of_a_history(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "sound")
    (folder / RANKINGS).unlink()
    change(folder, "rows.0.scores.accuracy", 7.0)
    said = "record/run.json: not a valid record: rows.0.scores.accuracy is 7, which is not between 0 and 1"
    shown = call("show", folder)
    assert shown.exit_code == 2
    assert said in " ".join(shown.stderr.split())
    shown = call("history", folder.parent)
    assert shown.exit_code == 0
    assert f"{said} (method 'color')" in " ".join(shown.output.split()).replace("/ ", "/")


def test_a_file_that_is_too_large_is_not_read(folder: Path) -> None:
    with (folder / RUN).open("r+b") as file:
        file.truncate(MOST_BYTES + 1)
    start = time.perf_counter()
    with pytest.raises(BenchError, match="it has 64,000,001 bytes; at most 64,000,000 are read"):
        load(folder)
    assert time.perf_counter() - start < 0.5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and devices are those of POSIX")
@pytest.mark.parametrize("name", [RUN, RANKINGS])
def test_what_is_no_file_is_not_waited_for(folder: Path, name: str) -> None:
    makers: tuple[Callable[[Path], object], ...] = (os.mkfifo, Path.mkdir, lambda file: file.symlink_to("/dev/zero"))
    for make in makers:
        file = folder / name
        if file.is_dir():
            file.rmdir()
        else:
            file.unlink()
        make(file)
        with pytest.raises(BenchError, match=r"is there, and no file|no such record"):
            load_rankings(folder, load(folder))


def with_arrays(folder: Path, content: bytes) -> Record:
    """The record with these rankings, whose hash it names."""
    (folder / RANKINGS).write_bytes(content)
    change(folder, "rankings.sha256", hashlib.sha256(content).hexdigest())
    return load(folder)


def arrays_with(folder: Path, **changes: Any) -> bytes:
    arrays = load_rankings(folder, load(folder))
    buffer = io.BytesIO()
    arrays |= {name.replace("__", "/"): edit(arrays[name.replace("__", "/")]) for name, edit in changes.items()}
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "edit", "said"),
    [
        ("n_relevant", lambda a: a * 0 - 1, "n_relevant holds -1 to -1"),
        ("n_relevant", lambda a: a * 0 + 10**9, "n_relevant holds 1,000,000,000"),
        ("query_ids", lambda a: np.arange(len(a)), "query_ids holds int64, not text"),
        ("gallery_labels", lambda a: a.astype(float), "gallery_labels holds float64, not whole numbers"),
    ],
)
def test_every_array_fits_every_other(folder: Path, name: str, edit: Callable, said: str) -> None:
    record = with_arrays(folder, arrays_with(folder, **{name: edit}))
    with pytest.raises(BenchError, match=said):
        load_rankings(folder, record)


def test_rankings_that_promise_a_terabyte_take_no_memory(folder: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    content = io.BytesIO((folder / RANKINGS).read_bytes())
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.npy", head.getvalue() + bytes(100))
    with pytest.raises(BenchError, match=r"8,000,000,000,000 bytes is in it, and 100 are there"):
        load_rankings(folder, with_arrays(folder, content.getvalue()))


@pytest.fixture
def edited(folder: Path) -> tuple[Path, str]:
    """A record in which a score was changed, and the method's name."""
    method = load(folder).rows[0].method
    change(folder, "rows.0.scores.accuracy", 0.987654)
    return folder, method


@pytest.mark.slow(reason="a page of a report, and six other commands")
def test_a_score_that_the_rankings_do_not_give_is_marked(edited: tuple[Path, str], tmp_path: Path) -> None:
    folder, method = edited
    shown = call("show", folder)
    assert shown.exit_code == 0
    assert f"{method} {MARK}" in shown.stdout
    assert f"{MARK} accuracy is 0.987654 in the record, and " in " ".join(shown.stdout.split())
    assert f"{method} {MARK}" in call("show", folder, "--format", "md").stdout
    for form in ("csv", "json"):
        plain = call("show", folder, "--format", form)
        assert MARK not in plain.stdout
        assert f"{method}: {MARK} accuracy is 0.987654" in plain.stderr
    assert MARK not in call("show", SCHEMA_1).output
    page = tmp_path / "page.html"
    assert call("report", folder, "--no-images", "--out", page).exit_code == 0
    assert f"{method} {MARK}" in page.read_text()
    assert MARK not in (call("report", SCHEMA_1, "--format", "md").stdout)


def test_slices_say_that_a_score_is_not_what_the_rankings_give(edited: tuple[Path, str]) -> None:
    folder, method = edited
    told = call("slices", folder, "--methods", method)
    assert f"{method}: {MARK} accuracy is 0.987654 in the record" in told.stderr


def test_any_metric_of_the_record_is_computed_again(folder: Path) -> None:
    change(folder, "rows.1.scores.macro_f1@1", 0.123456)
    record = load(folder)
    found = contradictions(record, load_rankings(folder, record))
    assert list(found) == [record.rows[1].method]
    assert "macro_f1@1 is 0.123456" in found[record.rows[1].method]


def test_damaged_rankings_are_told_where_the_table_is_shown(folder: Path) -> None:
    content = bytearray((folder / RANKINGS).read_bytes())
    content[1000] ^= 1
    (folder / RANKINGS).write_bytes(bytes(content))
    shown = call("show", folder)
    assert shown.exit_code == 0
    assert "the scores are not compared with the rankings: " in shown.stderr


def looked_at(folder: Path, content: bytes, name: str, deep: bool) -> str:
    """What becomes of a record of which one file holds these bytes: "shown", or the sentence that refuses it."""
    (folder / name).write_bytes(content)
    try:
        record = load(folder)
        if name == RANKINGS:
            stamp = Rankings(file=RANKINGS, sha256=hashlib.sha256(content).hexdigest())
            record = record.model_copy(update={"rankings": stamp})
            arrays = load_rankings(folder, record)
        else:
            arrays = load_rankings(folder, record) if deep else {}
        table.terminal(record).encode()
        table.tidy_csv(record).encode()
        record.to_json().encode()
        if deep:
            contradictions(record, arrays)
    except BenchError as error:
        return str(error)
    return "shown"


@pytest.mark.parametrize(("name", "examples"), [(RUN, 40), (RANKINGS, 10)])
def test_no_damage_is_more_than_a_sentence(tmp_path_factory: pytest.TempPathFactory, name: str, examples: int) -> None:
    folder = shutil.copytree(SCHEMA_1, tmp_path_factory.mktemp("fuzz") / "record")
    whole = (folder / name).read_bytes()

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True)
    @given(st.integers(0, 2**32))
    def damage(seed: int) -> None:
        said = looked_at(folder, mutated(whole, seed), name, deep=False)
        assert "\n" not in said

    damage()


@pytest.mark.slow(reason="20,000 damaged records in `make faults`, 300 in the other tests")
@pytest.mark.parametrize(("name", "share"), [(RUN, 0.8), (RANKINGS, 0.2)])
def test_damaged_reference_records_cost_neither_time_nor_memory(tmp_path: Path, name: str, share: float) -> None:
    """Of each, the time; of all, the memory. A fiftieth is judged again, too."""
    resource = pytest.importorskip("resource", reason="Windows has no limits of a process")
    folder = shutil.copytree(REFERENCE, tmp_path / "record")
    whole = (folder / name).read_bytes()
    looked_at(folder, whole, name, deep=True)  # what is loaded and compiled once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ends: dict[bool, int] = {True: 0, False: 0}
    for seed in range(round(share * (20_000 if LONG else 300))):
        start = time.perf_counter()
        said = looked_at(folder, mutated(whole, seed), name, deep=name == RUN and seed % 50 == 0)
        assert time.perf_counter() - start < 5, seed
        assert "\n" not in said, seed
        ends[said == "shown"] += 1
    unit = 1024 if sys.platform == "darwin" else 1
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit < 512 * 1024
    assert ends[False] > 50
    assert name == RANKINGS or ends[True] > 20


VALUES = (
    *(None, "", "x" * 300_000, -1, 0, 10**30, 1e308, -1e308, True, 5.5, [], {}, ["a"], {"a": 1}),
    *("<script>", "../../x", {"accuracy": {"low": 0.1, "high": 0.2}}),
)
COMMANDS = (
    ("show",),
    ("show", "--format", "csv"),
    ("show", "--unknown"),
    ("report", "--no-images", "--out", "page.html"),
    ("report", "--format", "md"),
    ("report", "--format", "json", "--no-images"),
    ("report", "--format", "latex"),
    ("slices",),
    ("convert", "--to", "csv", "--out", "converted"),
    ("diff", str(SCHEMA_1)),
)


def fields(content: Any, at: tuple = ()) -> list[tuple]:
    """The ways to all fields; of lists to the first two."""
    below = content.items() if isinstance(content, dict) else enumerate(content[:2])
    found = [(*at, name) for name, _ in below]
    for name, value in below if isinstance(content, dict) else enumerate(content[:2]):
        found += fields(value, (*at, name)) if isinstance(value, dict | list) else []
    return found


@pytest.mark.slow(reason="gives records with one strange field to every command that reads one")
def test_no_field_makes_a_command_fall_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    whole = json.loads((folder / RUN).read_bytes())
    rng, ways = random.Random(1), fields(whole)
    taken = 0
    for _ in range(600 if LONG else 80):
        content = json.loads(json.dumps(whole))
        *way, last = rng.choice(ways)
        at = content
        for step in way:
            at = at[step]
        if rng.random() < 0.25:
            del at[last]
        else:
            at[last] = rng.choice(VALUES)
        (folder / RUN).write_text(json.dumps(content))
        try:
            load(folder)
        except BenchError:
            continue
        taken += 1
        words = rng.choice(COMMANDS)
        done = call(words[0], folder, *words[1:])
        assert done.exit_code in (0, 1, 2, 3), (way, last, words, done.stderr)
        assert "Traceback" not in done.stderr
    assert taken > 15


@pytest.mark.slow(reason="a process of its own")
def test_200_megabytes_of_one_field_are_refused_at_once(folder: Path) -> None:
    change(folder, "dataset.notices", ["x" * 200_000_000])
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", "show", folder], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 2
    assert "at most 64,000,000 are read" in done.stderr
    assert time.perf_counter() - start < 20

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from benchmark import interrupt
from benchmark import run as run_module
from benchmark.cli import app
from retrieval_bench.experiment import in_process, prepare, runner
from retrieval_bench.records.files import load, save
from retrieval_bench.search import jit
from retrieval_bench.system.cache import CACHE_VARIABLE, cache_root, set_aside
from retrieval_bench.system.cores import usable_cores
from retrieval_bench.system.sealed import STATE_VARIABLE, state_root
from tests.support.command import call, run
from tests.support.paths import ROOT
from tests.support.records import record, row

pytestmark = pytest.mark.usefixtures("own_cache")


def test_help_names_every_command_and_flag() -> None:
    text = call("--help").stdout
    for name in ("run", "list", "show", "diff", "data", "130"):
        assert name in text
    text = re.sub(r"\x1b\[[0-9;]*m", "", CliRunner(env={"COLUMNS": "200"}).invoke(app, ["run", "--help"]).stdout)
    flags = (
        "methods dataset data-root k seed out weights device threads limit no-cache recompute overwrite dry-run json"
    )
    for flag in (*flags.split(), "backend"):
        assert f"--{flag}" in text


def test_a_run_prints_the_table_and_writes_the_record(shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(shelf, out, "--methods", "color,phash,oracle")
    assert result.exit_code == 0, result.stderr
    saved = load(out)
    assert [row.method for row in saved.rows] == ["color", "phash", "oracle"]
    assert result.stdout.splitlines()[0].startswith("method")
    assert "oracle" in result.stdout
    assert "color: accuracy" in result.stderr
    assert {path.name for path in out.iterdir()} == {"run.json", "rankings.npz", "table.md", "table.csv"}
    for form in ("table", "md", "csv", "json"):
        assert call("show", out, "--format", form).stdout.strip()
    assert call("show", out).stdout == result.stdout
    assert (out / "table.md").read_text() == call("show", out / "run.json", "--format", "md").stdout


def test_json_is_the_record_alone(shelf: Path, tmp_path: Path) -> None:
    result = run(shelf, tmp_path / "out", "--methods", "color", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads((tmp_path / "out" / "run.json").read_text())


def test_dry_run_runs_nothing(shelf: Path, tmp_path: Path) -> None:
    result = run(shelf, tmp_path / "out", "--methods", "color,sift:words=64", "--dry-run")
    assert result.exit_code == 0
    assert "sift:words=64" in result.stdout
    assert "train 12, gallery 12, query 12" in result.stdout
    assert not (tmp_path / "out").exists()
    content = json.loads(run(shelf, tmp_path / "out", "--methods", "color", "--dry-run", "--json").stdout)
    assert content["images"] == {"train": 12, "gallery": 12, "query": 12}


def test_a_dry_run_that_resumes_says_what_is_finished_and_refuses_the_record_of_another_run(
    shelf: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "squeezenet1_1.pth").write_bytes(b"not weights")
    words = ("--methods", "color,squeezenet1_1", "--weights", weights)
    assert run(shelf, out, *words).exit_code == 4
    told = json.loads(run(shelf, out, *words, "--resume", "--dry-run", "--json").stdout)
    assert (told["methods"], told["finished"]) == (["squeezenet1_1"], ["color"])
    refused = run(shelf, out, *words, "--seed", 5, "--resume", "--dry-run")
    assert refused.exit_code == 2
    assert "seed 0 there, 5 here" in refused.stderr
    assert not (out / "earlier").exists()


def test_a_dry_run_that_resumes_prepares_the_data_once(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = []

    def counted(*given: Any) -> prepare.Trial:
        prepared.append(given)
        return prepare.prepare(*given)

    for module in (runner, in_process):
        monkeypatch.setattr(module, "prepare", counted)
    result = run(shelf, tmp_path / "out", "--methods", "color", "--resume", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert len(prepared) == 1
    others = tmp_path / "others.csv"
    others.write_text("query,gallery,rank\nnobody.jpg,nothing.jpg,1\n")
    result = run(shelf, tmp_path / "out", "--methods", f"ranking:{others}", "--resume", "--dry-run")
    assert (result.exit_code, len(prepared)) == (2, 2), result.stderr  # methods meet the data as without --resume


def test_perturbations_of_queries_that_no_method_reads_are_refused(shelf: Path, tmp_path: Path) -> None:
    for asked in ("blur", "all"):
        result = run(shelf, tmp_path / "out", "--methods", "random,oracle", "--perturb", asked)
        assert result.exit_code == 2
        assert f"--perturb {asked}: no method of this run reads queries" in result.stderr


def test_some_failed_is_exit_4_and_the_others_are_saved(shelf: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "squeezenet1_1.pth").write_bytes(b"not weights")
    result = run(shelf, tmp_path / "out", "--methods", "squeezenet1_1,color", "--weights", weights)
    assert result.exit_code == 4
    assert [row.status for row in load(tmp_path / "out").rows] == ["failed", "ok"]
    assert "squeezenet1_1 failed" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--methods", "sfit"], "did you mean 'sift'"),
        (["--methods", "resnet5O"], "did you mean 'resnet50'"),
        (["--methods", "sift:word=3"], "did you mean 'words'"),
        (["--methods", " , "], "names no method"),
        (["--methods", ""], "names no method"),
        (["--data-root", "my_shop"], "products is rendered and reads nothing from my_shop"),
        (["--seed", "5000000000"], "--seed"),
        (["--dataset", "grocerry"], "did you mean 'grocery'"),
        (["--backend", "exakt"], "did you mean 'exact'"),
        (["--k", "1,x"], "write whole numbers"),
        (["--k", "0"], "at least 1"),
        (["--severity", "3"], "--severity '3' is of --perturb"),
        (["--perturb", "flip", "--severity", "3"], "--severity '3': flip has no severity; leave it out"),
        (["--concurrency", "1,x"], "write whole numbers from 1 to 256"),
        (["--concurrency", "0"], "write whole numbers from 1 to 256"),
        (["--weights", "pretraind"], "is no folder and not one of"),
        (["--dataset", "folder"], "--data-root"),
        (["--dataset", "folder", "--data-root", "nowhere"], "nowhere"),
        (["--device", "gpu"], "gpu"),
        (["--limit", "0"], "--limit"),
        (["--methds", "sift"], "--methods"),
    ],
)
def test_the_users_mistakes_are_exit_2_and_one_sentence(words: list[str], sentence: str, tmp_path: Path) -> None:
    result = call("run", "--out", tmp_path / "out", *words)
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_an_unknown_command_gets_the_closest() -> None:
    result = call("shwo")
    assert result.exit_code == 2
    assert "show" in result.stderr


def test_a_weights_variable_that_points_nowhere_is_exit_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVAL_BENCH_WEIGHTS", str(tmp_path / "gone"))
    result = call("run", "--methods", "resnet18", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "RETRIEVAL_BENCH_WEIGHTS=" in result.stderr


def test_more_threads_than_cores_are_not_claimed(shelf: Path, tmp_path: Path) -> None:
    result = run(shelf, tmp_path / "out", "--methods", "color", "--threads", "3000")
    assert result.exit_code == 0
    assert "this process may use" in result.stderr
    assert load(tmp_path / "out").settings.threads == usable_cores()


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_paths_that_are_not_utf_8_reach_the_record(shelf: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    shelf.rename(odd)
    out = os.fsdecode(os.fsencode(tmp_path) + b"/out\xe9")
    result = call("run", "--dataset", "folder", "--data-root", odd, "--out", out, "--k", "1", "--methods", "color")
    assert result.exit_code == 0, result.stderr
    assert (load(Path(out)).dataset.root or "").endswith("caf\\xe9")


@pytest.mark.slow(reason="processes of its own")
@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_reader_that_goes_away_changes_no_exit_code(tmp_path: Path) -> None:
    save(record(row(scores={"accuracy": 0.5})), tmp_path / "a", {})
    save(record(row(scores={"accuracy": 0.9})), tmp_path / "b", {})
    command = f"{sys.executable} -m benchmark diff {tmp_path / 'a'} {tmp_path / 'b'} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == ""
    full = f"{sys.executable} -m benchmark show {tmp_path / 'a'} > /dev/full"
    done = subprocess.run(["bash", "-c", full], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard output cannot be written")


@pytest.mark.slow(reason="a whole run")
def test_a_terminal_without_box_characters_gets_the_table(tmp_path: Path) -> None:
    save(record(row()), tmp_path / "a", {})
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", "show", str(tmp_path / "a")],
        cwd=ROOT,
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
    )
    assert b"sift" in done.stdout


def test_k_beyond_the_gallery_is_exit_2(shelf: Path, tmp_path: Path) -> None:
    result = call("run", "--dataset", "folder", "--data-root", shelf, "--k", "500", "--methods", "color")
    assert result.exit_code == 2
    assert "--k 500 is more than the 12 gallery images" in result.stderr


def test_an_out_that_is_a_file_is_exit_2(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    result = run(shelf, tmp_path / "out", "--methods", "color")
    assert result.exit_code == 2
    assert "name a folder" in result.stderr


def test_a_query_class_that_the_gallery_lacks_is_counted(shelf: Path, tmp_path: Path) -> None:
    for image in (shelf / "gallery" / "product-2").iterdir():
        image.unlink()
    result = run(shelf, tmp_path / "out", "--methods", "oracle")
    assert result.exit_code == 0
    assert load(tmp_path / "out").dataset.queries_left_out == 3
    assert "3 of 12 queries left out" in result.stdout


def test_too_many_bad_images_are_exit_2_unless_allowed(shelf: Path, tmp_path: Path) -> None:
    bad = shelf / "query" / "product-1" / "1.png"
    bad.write_bytes(b"<!doctype html>")
    result = run(shelf, tmp_path / "out", "--methods", "color")
    assert result.exit_code == 2
    assert "1 not an image" in result.stderr
    result = run(shelf, tmp_path / "out", "--methods", "color", "--max-bad", "0.1")
    assert result.exit_code == 0
    assert [item.id for item in load(tmp_path / "out").dataset.skipped] == ["query/product-1/1.png"]


@pytest.mark.slow(reason="a whole run")
def test_a_cache_that_cannot_be_written_costs_a_sentence(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RETRIEVAL_BENCH_CACHE", str(tmp_path / "file"))
    result = run(shelf, tmp_path / "out", "--methods", "color,phash")
    assert result.exit_code == 0
    assert result.stderr.count("cannot be written") == 1


@pytest.mark.slow(reason="two runs")
def test_recompute_computes_anew(shelf: Path, tmp_path: Path) -> None:
    for _ in range(2):
        run(shelf, tmp_path / "out", "--methods", "color", "--recompute")
        features = load(tmp_path / "out").rows[0].features
        assert features is not None
        assert (features.computed, features.from_cache) == (24, 0)


@pytest.mark.long(reason="compiles, for one run alone, what every run needs")
def test_no_cache_touches_none(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = (CACHE_VARIABLE, STATE_VARIABLE, "TMPDIR", "XDG_CACHE_HOME", "XDG_STATE_HOME")
    for name in named:
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "TMPDIR").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    # numpy searches, so that few kernels are compiled; where they would lie is looked at below.
    words = ("--methods", "hsv", "--no-cache", "--backend", "numpy")
    result = run(shelf, tmp_path / "out", *words)
    assert result.exit_code == 0, result.stderr
    features = load(tmp_path / "out").rows[0].features
    assert features is not None
    assert features.from_cache == 0
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["TMPDIR", "out", "shelf"], "a cache was written, or what served this run alone was left behind"
    with set_aside():
        for place in (jit.directory(), cache_root(), state_root()):
            assert place.is_relative_to(tmp_path / "TMPDIR")
    assert cache_root() == tmp_path / CACHE_VARIABLE
    assert list((tmp_path / "TMPDIR").iterdir()) == []


def test_diff_exit_codes(tmp_path: Path) -> None:
    same, moved, other = (tmp_path / name for name in ("same", "moved", "other"))
    save(record(row(scores={"accuracy": 0.5})), same, {})
    save(record(row(scores={"accuracy": 0.65})), moved, {})
    save(record(row(), dataset={"fingerprint": "cd" * 32}), other, {})
    assert call("diff", same, same).exit_code == 0
    result = call("diff", same, moved)
    assert result.exit_code == 1
    assert "accuracy 0.5000 -> 0.6500" in result.stdout
    assert call("diff", same, moved, "--learned-tolerance", "0.2").exit_code == 0
    result = call("diff", same, other)
    assert result.exit_code == 3
    assert "not comparable" in result.stderr
    assert call("diff", same, other, "--format", "md").stdout.startswith("### ⚠️ Retrieval benchmark: not comparable")
    assert "fingerprint" in json.loads(call("diff", same, other, "--format", "json").stdout)["not_comparable"]
    result = call("diff", same, tmp_path / "nothing")
    assert result.exit_code == 2
    assert "no such record" in result.stderr
    assert json.loads(call("diff", same, moved, "--json").stdout)["passed"] is False
    assert call("diff", same, moved, "--fail", "accuracy:0.01").exit_code == 0, "it got better"
    assert call("diff", moved, same, "--fail", "accuracy:0.01", "--fail", "accuracy:90%").exit_code == 1
    assert call("diff", same, moved, "--fail", "accuracy").exit_code == 2
    assert call("diff", same, moved, "--format", "md").stdout.startswith("### ")
    assert call("diff", same, moved, "--format", "github").stdout.startswith("{")
    for passed_over, said in (
        (("--json", "--format", "md"), "--json and --format md: two forms"),
        (("--fail", "accuracy:0.01", "--tolerance", "0.1"), "--tolerance and --fail: with --fail no tolerance"),
        (("--fail", "accuracy:0.01", "--learned-tolerance", "0.1"), "--learned-tolerance and --fail"),
        (("--tolerance", "5"), "--tolerance"),
    ):
        result = call("diff", same, moved, *passed_over)
        assert result.exit_code == 2, passed_over
        assert said in result.stderr
    elsewhere = tmp_path / "elsewhere"
    save(record(row(scores={"accuracy": 0.5}), environment={"processor": "another"}), elsewhere, {})
    assert call("diff", same, elsewhere).exit_code == 0
    assert call("diff", same, elsewhere, "--fail", "end_to_end_ms_p50:20%").exit_code == 3
    assert call("diff", moved, elsewhere, "--fail", "end_to_end_ms_p50:20%", "--fail", "accuracy:0").exit_code == 1


def test_list_names_everything() -> None:
    text = call("list").stdout
    for name in ("sift", "phash", "resnet50", "rrf", "verify", "grocery", "map@r", "exact"):
        assert re.search(rf"\b{name}\b", text), name
    content = json.loads(call("list", "--json").stdout)
    kinds = {"methods", "joins", "steps", "classifiers", "datasets", "metrics", "backends", "perturbations"} | {
        *("cleanings", "plugins", "text-perturbations")
    }
    assert content.keys() == kinds
    assert all(entry["about"] for entries in content.values() for entry in entries)
    assert "sift" not in call("list", "metrics").stdout
    assert call("list", "metrcs").exit_code == 2
    for word in ("definition", "denominator", "ties", "empty", "ceiling"):
        assert f"  {word} " in call("list", "metrics").stdout


def test_list_shows_a_family_on_a_screen() -> None:
    lines = call("list").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    families = [list(family) for blank, family in itertools.groupby(lines, key=lambda line: not line) if not blank]
    assert max(len(family) for family in families if not family[0].startswith("datasets")) < 24
    titles = [family[0] for family in families if family[0].startswith("methods, family ")]
    assert titles == sorted(titles)
    assert "vgg19_bn" not in "\n".join(lines)
    assert "vgg19_bn" in call("list", "methods").stdout


def test_list_explains_one_thing_with_its_options() -> None:
    text = call("list", "sift").stdout
    assert text.startswith("sift (method, family local)\n")
    assert re.search(r"^  encode +fisher +how the descriptors of an image become one", text, re.M)
    assert re.search(r"^  upright +no +all keypoints point up", text, re.M)
    assert "verify=100" in call("list", "verify").stdout
    assert "timm:NETWORK" in call("list", "timm").stdout
    assert "has no options" in call("list", "random").stdout
    assert call("list", "recall").stdout.startswith("recall@k: ")
    assert call("list", "heads").stdout == call("list", "classifiers").stdout
    (entry,) = json.loads(call("list", "phash", "--json").stdout)["methods"]
    assert entry["options"].keys() == entry["meanings"].keys() == {"size"}
    assert "did you mean 'phash'" in call("list", "pash").stderr


def test_list_metrics_knows_the_ceilings_of_a_dataset(shelf: Path) -> None:
    words = ("list", "metrics", "--dataset", "folder", "--data-root", shelf)
    assert "on folder: precision@1 1.0000, precision@5 0.6000, precision@10 0.3000" in call(*words).stdout
    entries = json.loads(call(*words, "--json").stdout)["metrics"]
    assert {entry["name"]: entry for entry in entries}["recall"]["ceilings"]["recall@1"] == pytest.approx(1 / 3)
    assert call("list", "methods", "--dataset", "folder").exit_code == 2


@pytest.mark.slow(reason="two runs")
def test_repeat_of_a_record_is_identical(shelf: Path, tmp_path: Path) -> None:
    assert run(shelf, tmp_path / "out", "--methods", "phash").exit_code == 0
    result = call("repeat", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (0, "identical\n")
    assert call("repeat", tmp_path / "out", "--out", tmp_path / "out").exit_code == 2


def test_a_picture_takes_the_place_of_no_record_and_of_no_other_form(tmp_path: Path) -> None:
    save(record(row()), tmp_path / "kept", {})
    file = tmp_path / "kept" / "run.json"
    before = file.read_bytes()
    for words in (("show", tmp_path / "kept", "--curves"), ("data", "prepare", "products", "--sheet")):
        for place, said in (
            (file, "is a file of a record, which would be lost"),
            (tmp_path / "curves.txt", "name a file that ends in .png"),
            (tmp_path, "is a folder"),
        ):
            result = call(*words, place)
            assert result.exit_code == 2, words
            assert f"{words[-1]} {place}: " in result.stderr
            assert said in result.stderr
    assert file.read_bytes() == before
    assert not (tmp_path / "curves.txt").exists()


@pytest.mark.slow(reason="24 processes")
def test_race_exit_codes(tmp_path: Path) -> None:
    """By the time of a record that the commands print: how long they take themselves depends on what else runs here."""

    def prints(name: str, milliseconds: int) -> str:
        rows = [{"method": "phash", "times": {"search": {"unit": "ms", "value": milliseconds}}}]
        (tmp_path / name).write_text(f"print('{json.dumps({'rows': rows})}')")
        return f"{sys.executable} -S {tmp_path / name}"

    quick, slow = prints("quick.py", 1), prints("slow.py", 2)
    assert call("race", quick, slow, "--rounds", 3, "--fail", "phash search_ms:50%").exit_code == 1
    result = call("race", slow, quick, "--rounds", 3, "--fail", "phash search_ms:50%")
    assert result.exit_code == 0
    assert "wall_s" in result.stdout
    assert call("race", quick, quick, "--rounds", 3, "--fail", "wall_s:0.5").exit_code == 2


def test_data_prepare_says_what_is_there(shelf: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    result = call("data", "prepare", "folder", "--data-root", shelf, "--sheet", sheet)
    assert result.exit_code == 0
    assert "4 labels" in result.stdout
    assert "unusable" not in result.stdout
    assert "12 images" in result.stdout
    with Image.open(sheet) as picture_of_all:
        assert picture_of_all.size[0] > 100


def test_data_prepare_counts_what_cannot_be_used(shelf: Path) -> None:
    (shelf / "train" / "product-0" / "0.png").write_bytes(b"")
    result = call("data", "prepare", "folder", "--data-root", shelf)
    assert "unusable: 1 empty file, e.g. train/product-0/0.png" in result.stdout


def test_dry_run_finds_what_the_run_would_refuse(shelf: Path, tmp_path: Path) -> None:
    assert run(shelf, tmp_path / "out", "--methods", "sift:words=-1", "--dry-run").exit_code == 2
    (shelf / "train" / "product-0" / "0.png").write_bytes(b"")
    assert run(shelf, tmp_path / "out", "--methods", "color", "--dry-run").exit_code == 2


def test_the_version() -> None:
    assert call("--version").stdout.strip() == "0.1.0"


def test_an_interrupt_that_python_drops_still_ends_the_run(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrupt, "_stopping", stopping := threading.Event())
    monkeypatch.setattr(run_module, "one_line", lambda row: (stopping.set(), row.method)[1])
    result = run(shelf, tmp_path / "out", "--methods", "color,phash,ahash")
    assert result.exit_code == 130
    saved = load(tmp_path / "out")
    assert (saved.status, [one.method for one in saved.rows]) == ("interrupted", ["color"])


def test_a_signal_in_a_destructor_is_not_raised_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "_stopping", stopping := threading.Event())
    reached = []

    class Dies:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)
            reached.append(True)

    with interrupt.interruptible():
        Dies()
    assert reached == [True]
    assert stopping.is_set()
    with interrupt.interruptible(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.slow(reason="a whole run in a process of its own, which loads torch")
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long(reason="the same"))]
)
def test_an_interrupt_is_exit_130_and_keeps_what_was_finished(number: int, shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["run", "--dataset", "folder", "--data-root", shelf, "--out", out, "--k", "1,3", "--threads", "1"]
    words += ["--methods", "color,resnet18,resnet50", "--weights", "random"]
    command = [sys.executable, "-m", "benchmark", *map(str, words)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        deadline = time.monotonic() + 120
        for line in process.stderr:
            if "resnet18: starting" in line:
                break
            assert time.monotonic() < deadline
        process.send_signal(number)
        out_text, error_text = process.communicate(timeout=120)
    assert process.returncode == 130, error_text
    assert "interrupted" in error_text
    assert "Traceback" not in error_text
    assert out_text == ""
    saved = load(out)
    assert saved.status == "interrupted"
    assert [one.method for one in saved.rows] == ["color"]


@pytest.mark.slow(reason="a whole run")
def test_the_former_name_of_classifiers_goes_on_working_and_is_not_shown(shelf: Path, tmp_path: Path) -> None:
    former, now = tmp_path / "former", tmp_path / "now"
    assert run(shelf, former, "--methods", "color", "--heads", "knn").exit_code == 0
    assert run(shelf, now, "--methods", "color", "--classifiers", "knn").exit_code == 0
    assert load(former).rows[0].classifiers["knn"].scores == load(now).rows[0].classifiers["knn"].scores
    assert "--heads" not in call("run", "--help").stdout
    both = run(shelf, now, "--methods", "color", "--heads", "knn", "--classifiers", "svm")
    assert both.exit_code == 2
    assert "with --classifiers" in both.stderr


def every_command() -> list[tuple[list[str], Any]]:
    """Words that lead to each command, and the command."""
    whole = typer.main.get_command(app)
    found = []
    for name, one in whole.commands.items():
        inner = getattr(one, "commands", None)
        found += [([name], one)] if inner is None else [([name, below], each) for below, each in inner.items()]
    return found


@pytest.mark.parametrize(
    ("words", "one"), every_command(), ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_every_word_in_brackets_survives_in_the_help(words: list[str], one: Any) -> None:
    """Help is set by rich, whose markup swallows `[untrained]` where it is not escaped."""
    shown = CliRunner(env={"COLUMNS": "300", "TERM": "dumb"}).invoke(app, [*words, "--help"]).stdout
    told = " ".join([one.help or "", *(getattr(each, "help", None) or "" for each in one.params)]).replace("\\[", "[")
    for word in re.findall(r"\[[^\[\]]+\]", told):
        assert word in shown
    if words == ["run"]:
        assert "marked [untrained]." in shown


def test_a_cleaning_is_explained_with_a_method_before_it() -> None:
    text = call("list", "trim").stdout
    assert text.startswith("trim (cleaning)")
    assert "sift@trim:tolerance=12" in text


@pytest.mark.slow(reason="three runs")
def test_decode_is_recorded_and_whole_where_a_method_forbids_it(shelf: Path, tmp_path: Path) -> None:
    for methods, side in (("phash", 32), ("phash,whash", None), ("phash,phash@contrast", None)):
        out = tmp_path / methods
        done = run(shelf, out, "--methods", methods, "--decode", "reduced", "--threads", 1)
        assert done.exit_code == 0, done.stderr
        record = json.loads((out / "run.json").read_text(encoding="utf-8"))
        assert record["settings"].get("decoded_for") == side
        assert "--decode reduced" in done.stdout
        assert ("decoded whole" in done.stdout) == (side is None)
    assert call("run", "--decode", "small").exit_code == 2

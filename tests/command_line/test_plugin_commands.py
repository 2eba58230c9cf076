"""Plug-ins on the command line: `--plugin`, how they are shown, what a record says of them, and `check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retrieval_bench.plugins.loading import load_files, unload
from retrieval_bench.records.files import load
from retrieval_bench.registry import fill
from tests.support.command import call, run
from tests.support.plugins import HEAD, method_file

pytestmark = pytest.mark.usefixtures("no_plugin_stays", "own_cache")
fill()

A_RUN = "a whole run"
METRICS = """
from retrieval_bench.evaluation.metrics import metric

@metric("first-two", "both of the first two are relevant", "rel(1) rel(2)", "F2", "1", at_k=False, has_ceiling=False)
def first_two(judged, k=None):
    return judged.hits[:, :2].all(axis=1).astype(float)

@metric("torn", "raises", "nothing", "T", "1", at_k=False)
def torn(judged, k=None):
    raise KeyError("torn apart")

@metric("low", "a ceiling of a half", "1 / 2", "L", "2", at_k=False)
def low(judged, k=None):
    return np.full(len(judged), 0.5)

@metric("high", "more than 1", "7", "H", "1", at_k=False, has_ceiling=False)
def high(judged, k=None):
    return np.full(len(judged), 7.0)
"""


def test_list_shows_those_that_are_loaded_and_those_that_failed(tmp_path: Path) -> None:
    good = method_file(tmp_path / "good.py")
    words = ("list", "plugins", "--plugin", good, "--plugin", tmp_path / "broken.py")
    done = call(*words)
    assert done.exit_code == 0
    assert done.stderr == "plug-in broken.py failed to import: there is no such file\n"
    first, second = done.stdout.splitlines()
    assert first.startswith("good.py (sha256 ")
    assert first.endswith("): loaded, plain-mean")
    assert second == "broken.py (unread): failed: there is no such file"
    facts = json.loads(call(*words, "--json").stdout)["plugins"]
    assert [one["status"] for one in facts] == ["loaded", "failed"]
    assert facts[0]["registered"] == [{"kind": "methods", "name": "plain-mean"}]
    assert facts[1]["reason"] == "there is no such file"
    assert "plain-mean (method, family color)" in call("list", "plain-mean", "--plugin", good).stdout


def test_list_says_that_there_is_none() -> None:
    assert call("list", "plugins").stdout == "none\n"


@pytest.mark.slow(reason=A_RUN)
def test_what_a_plugin_prints_is_no_part_of_json(shelf: Path, tmp_path: Path) -> None:
    talks = method_file(tmp_path / "talks.py", more="print('imported')\n")
    talks.write_text(
        talks.read_text("utf-8").replace("        return np", "        print('asked')\n        return np"), "utf-8"
    )
    words = ("--methods", "plain-mean", "--plugin", talks, "--threads", "1", "--json")
    done = run(shelf, tmp_path / "out", *words)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["rows"][0]["method"] == "plain-mean"
    assert {"imported", "asked"} <= {*done.stderr.splitlines()}


def test_a_method_that_does_not_build_is_a_sentence_of_the_dry_run(shelf: Path, tmp_path: Path) -> None:
    raises = method_file(tmp_path / "raises.py")
    raises.write_text(raises.read_text("utf-8").replace("return Mean(power)", "raise KeyError('size')"), "utf-8")
    done = run(shelf, tmp_path / "out", "--methods", "plain-mean", "--plugin", raises, "--dry-run")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == "error: plain-mean, which is of a plug-in, failed: KeyError: 'size'"


@pytest.mark.slow(reason=A_RUN)
def test_a_method_that_exits_fails_its_row_and_no_more(shelf: Path, tmp_path: Path) -> None:
    exits = method_file(tmp_path / "exits.py")
    exits.write_text(
        exits.read_text("utf-8").replace("        return np", "        exit(5)\n        return np"), "utf-8"
    )
    words = ("--methods", "plain-mean,hsv", "--plugin", exits, "--threads", "1")
    assert run(shelf, tmp_path / "out", *words).exit_code == 4
    assert [row.status for row in load(tmp_path / "out").rows] == ["failed", "ok"]


def test_doctor_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval_bench.diagnosis.libraries.libraries", dict)  # which takes seconds
    words = ("doctor", "--plugin", tmp_path / "broken.py")
    assert "plug-in                broken.py (unread): failed: there is no such file" in call(*words).stdout
    assert json.loads(call(*words, "--json").stdout)["plug-ins"][0]["status"] == "failed"


@pytest.mark.slow(reason=A_RUN)
def test_a_run_goes_on_without_what_is_broken_and_the_record_names_what_it_used(shelf: Path, tmp_path: Path) -> None:
    good = method_file(tmp_path / "good.py")
    unused = method_file(tmp_path / "unused.py", "unused-mean")
    named = ("--plugin", good, "--plugin", tmp_path / "broken.py", "--plugin", unused)
    out = tmp_path / "out"
    done = run(shelf, out, "--methods", "plain-mean:power=2,color", *named)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("plug-in broken.py failed to import: there is no such file") == 1
    record = load(out)
    assert [row.status for row in record.rows] == ["ok", "ok"]
    assert [(one.name, one.package) for one in record.settings.plugins] == [("good.py", None)]
    assert json.loads(record.to_json()) == json.loads((out / "run.json").read_text(encoding="utf-8"))

    again = call("repeat", out, "--plugin", good)
    assert again.exit_code == 0, again.stderr
    assert again.stdout.startswith("identical")


@pytest.mark.slow(reason=A_RUN)
def test_a_record_is_repeated_with_its_plugins_alone(shelf: Path, tmp_path: Path) -> None:
    good, out = method_file(tmp_path / "good.py"), tmp_path / "out"
    assert run(shelf, out, "--methods", "plain-mean", "--plugin", good).exit_code == 0
    (plugin,) = load_files([good])
    unload(plugin)
    done = call("repeat", out)
    assert done.exit_code == 2
    assert done.stderr == (
        f"error: the record used plug-in good.py (sha256 {plugin.sha256[:12]}), which is not loaded; "
        "name it by --plugin good.py\n"
    )
    assert call("show", out).exit_code == 0, "a record can be read without its plug-ins"
    good.write_text(good.read_text(encoding="utf-8").replace("255.0", "254.0"), encoding="utf-8")
    assert "plug-in good.py: its source has changed since then" in call("repeat", out, "--plugin", good).stdout


@pytest.mark.slow(reason=A_RUN)
def test_a_metric_of_a_plugin_is_computed_and_one_that_is_broken_is_left_out(
    shelf: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, out = tmp_path / "metrics.py", tmp_path / "out"
    file.write_text(HEAD + METRICS, encoding="utf-8")
    done = run(shelf, out, "--methods", "color,phash", "--plugin", file)
    assert done.exit_code == 0, done.stderr
    record = load(out)
    assert not record.violations
    assert {"torn", "low", "high"}.isdisjoint(record.rows[0].scores)
    assert 0 <= record.rows[0].scores["first-two"] <= record.rows[0].scores["accuracy"]
    assert record.metrics["first-two"].definition == "rel(1) rel(2)"
    assert "first-two" in record.rows[0].intervals
    assert [one.name for one in record.settings.plugins] == ["metrics.py"]
    told = "\n".join(caplog.messages)
    assert told.count("metric torn, which is of a plug-in, is left out: KeyError: 'torn apart'") == 1
    assert "metric low, which is of a plug-in, is left out: a perfect ranking gets 0.5 and not 1" in told
    assert "metric high, which is of a plug-in, is left out: ValueError: it returned a value that is not" in told
    for words in (("show", out), ("diff", out, out), ("report", out, "--out", tmp_path / "report.html")):
        assert call(*words).exit_code == 0, words


@pytest.mark.slow(reason="draws pictures and checks every clause")
def test_check_says_what_is_kept_and_what_is_broken(tmp_path: Path) -> None:
    good = method_file(tmp_path / "good.py")
    done = call("check", "plain-mean:power=2", "--plugin", good)
    assert done.exit_code == 0, done.stdout
    assert done.stdout.splitlines()[0] == "plain-mean:power=2.0:"
    assert done.stdout.splitlines()[-1] == "every clause is kept"
    torn = tmp_path / "torn.py"
    torn.write_text(good.read_text("utf-8").replace("plain-mean", "torn-mean").replace("np.float32", "float"), "utf-8")
    done = call("check", "torn-mean", "--plugin", torn)
    assert done.exit_code == 1
    assert "1 of 10 clauses are broken" in done.stdout
    (broken,) = (one for one in json.loads(call("check", "torn-mean", "--json").stdout) if one["verdict"] == "broken")
    assert broken["clause"] == "shapes"
    assert call("check", "no-mean").exit_code == 2

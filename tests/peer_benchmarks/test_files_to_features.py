"""Files to features beside peers: everybody sees the same files, each round, and the table says what was reached."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from benchmark.extraction import app
from retrieval_bench.core import BenchError
from retrieval_bench.peer_benchmarks import extraction, extraction_peers
from retrieval_bench.peer_benchmarks.extraction import Timed, as_files, contest, lines
from retrieval_bench.peer_benchmarks.extraction_peers import PEERS
from retrieval_bench.registry import fill
from tests.support.shop import shop


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    fill()
    return as_files(shop(4, 3).query, tmp_path_factory.mktemp("files"))


def test_files_are_jpeg_of_the_same_pictures(files: list[Path]) -> None:
    query = shop(4, 3).query
    for row, file in enumerate(files):
        with Image.open(file) as image:
            assert image.format == "JPEG"
            assert np.abs(np.asarray(image).astype(int) - query.images[row]).mean() < 20


def test_hashes_beside_the_loop_over_imagehash(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loop = [peer for peer in PEERS["phash"] if peer.name == "imagehash loop"]
    monkeypatch.setitem(PEERS, "phash", tuple(loop))
    (result,) = contest(["phash"], files, rounds=3, threads=[1, 2])
    assert set(result.seconds) == {"1 thread", "2 threads", "imagehash loop"}
    assert {len(samples) for samples in result.seconds.values()} == {3}
    assert result.same == {"imagehash loop": 1.0}
    assert "medians of 3 rounds" in "\n".join(lines([result], [1, 2]))


@pytest.mark.slow(reason="starts two processes, and each loads the libraries")
def test_processes_beside_threads(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "phash", ())
    (result,) = contest(["phash"], files, rounds=2, threads=[1, 2], processes=True)
    assert {who: len(samples) for who, samples in result.seconds.items()} == dict.fromkeys(
        ("1 thread", "2 threads", "2 processes"), 2
    )
    text = lines([result], [1, 2])
    assert "2 processes" in text[0]
    assert any("phash, of each of 2 processes  >= 0.90" in line for line in text)


@pytest.mark.long(reason="fits every method and runs every peer, with workers of their own")
def test_every_peer_that_is_there_runs(files: list[Path], tmp_path: Path) -> None:
    for method, peers in PEERS.items():
        (result,) = contest([method], files, rounds=1, threads=[1])
        assert set(result.seconds) == {"1 thread", *(peer.name for peer in peers if peer.there)}


def test_targets_are_judged_by_medians() -> None:
    result = Timed("phash", 100, {"1 thread": [1.0, 9.0, 1.0], "2 threads": [0.5], "imagededup": [1.2]})
    text = "\n".join(lines([result], [1, 2]))
    assert "met      phash, x imagededup  >= 2.00  2.40" in text
    assert "met      phash, of each of 2 threads  >= 0.90  1.00" in text
    slower = Timed("phash", 100, {"1 thread": [1.0], "2 threads": [0.7], "imagededup": [1.2]})
    assert "\n".join(lines([slower], [1, 2])).count("NOT MET") == 2


def test_a_method_without_peers_is_named(files: list[Path]) -> None:
    with pytest.raises(BenchError, match="choose among phash"):
        contest(["lbp"], files, rounds=1, threads=[1])


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: list[Path]) -> None:
    monkeypatch.setattr(extraction, "as_files", lambda split, folder: files)
    monkeypatch.setitem(PEERS, "phash", (extraction_peers.Peer("nobody", extraction_peers.imagehash_loop, "no_such"),))
    out = tmp_path / "times.json"
    options = ["--methods", "phash", "--images", "2", "--rounds", "1", "--threads", "1", "--json", str(out)]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    assert "none installed" in done.stdout
    assert json.loads(out.read_text(encoding="utf-8"))[0]["seconds"]["1 thread"][0] > 0
    mistake = CliRunner().invoke(app, ["--threads", "4096"])
    assert (mistake.exit_code, "--threads 4096" in mistake.stderr) == (2, True)

"""`run --perturb`: what comes into the record, what does not change by it, and how it is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.experiment.runner import run
from retrieval_bench.images.perturbations import perturbed
from retrieval_bench.records.schema import Record, Robustness
from retrieval_bench.report import robustness, table
from retrieval_bench.search.index import topk
from retrieval_bench.system.cache import FeatureCache
from tests.support.methods import Centred, MeanColor, spec
from tests.support.records import record as blank
from tests.support.records import row
from tests.support.runs import plan
from tests.support.shop import shop

pytestmark = pytest.mark.slow(reason="whole runs, perturbed query by perturbed query")


def scores_of(record: Record, method: str) -> dict[tuple[str, int], float]:
    (found,) = (row for row in record.rows if row.method == method)
    return {(one.perturbation, one.severity): one.scores["accuracy"] for one in found.robustness}


def test_queries_alone_are_perturbed_and_the_clean_pass_stays(tmp_path: Path) -> None:
    data = shop(5, 4)
    clean = run(plan(data, "color", "oracle"), tmp_path / "clean")
    both = run(
        plan(data, "color", "oracle", perturb=("brightness", "flip"), severities=(1, 5)),
        tmp_path / "both",
    )
    assert [one.scores for one in both.rows] == [one.scores for one in clean.rows]
    assert (tmp_path / "clean" / "rankings.npz").read_bytes() == (tmp_path / "both" / "rankings.npz").read_bytes()
    assert list(scores_of(both, "color")) == [("brightness", 1), ("brightness", 5), ("flip", 1)]
    assert scores_of(both, "oracle") == {}  # it sees labels, not pixels
    assert (both.settings.perturb, both.settings.severities) == (("brightness", "flip"), (1, 5))
    assert (clean.settings.perturb, clean.settings.severities) == ((), ())
    assert list(both.perturbations) == ["brightness", "flip"]
    assert both.perturbations["brightness"].endswith("all samples times or over 1.3, 1.6, 2, 2.6, 3.5")
    assert clean.perturbations == {}
    for one in both.rows[0].robustness:
        assert set(one.scores) == {"accuracy", "map@r", "recall@10"}
        assert one.intervals["accuracy"].low <= one.scores["accuracy"] <= one.intervals["accuracy"].high


def test_the_scores_are_those_of_searching_by_hand(tmp_path: Path) -> None:
    data = shop(5, 4)
    found = run(plan(data, spec("mean", MeanColor), perturb=("brightness", "occlude"), severities=(2, 4)), tmp_path)
    gallery = MeanColor().transform([data.gallery.images[row] for row in range(len(data.gallery))])
    for (name, severity), accuracy in scores_of(found, "mean").items():
        pictures = [perturbed(name, data.query.images[row], severity, 0) for row in range(len(data.query))]
        nearest = topk(MeanColor().transform(pictures), gallery, 1, "euclidean").indices[:, 0]
        assert accuracy == np.mean(data.gallery.labels[nearest] == data.query.labels)
    assert len(set(scores_of(found, "mean").values())) > 1


def test_nothing_is_learned_again_and_the_cache_keeps_them_apart(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache")
    data = shop(5, 4)
    Centred.fits = 0
    changes = {"perturb": ("noise",), "severities": (3,), "cache": cache}
    first = run(plan(data, spec("centred", Centred), **changes), tmp_path / "1")
    assert Centred.fits == 1
    assert first.rows[0].features.computed == 40  # gallery and clean queries; the perturbed are not counted
    second = run(plan(data, spec("centred", Centred), **changes), tmp_path / "2")
    assert Centred.fits == 1
    assert second.rows[0].robustness == first.rows[0].robustness
    clean = run(plan(data, spec("centred", Centred), cache=cache), tmp_path / "3")
    assert clean.rows[0].scores == first.rows[0].scores
    bare = run(plan(data, spec("centred", Centred), perturb=("noise",), severities=(3,)), tmp_path / "4")
    assert bare.rows[0].robustness == first.rows[0].robustness


def test_a_joined_and_reranked_method_is_asked_again_too(tmp_path: Path) -> None:
    found = run(plan(shop(5, 4), "color+phash+qe=3", perturb=("blur",), severities=(1,), threads=1), tmp_path)
    assert found.rows[0].error is None
    assert list(scores_of(found, "color+phash+qe=3")) == [("blur", 1)]


def shaken() -> Record:
    def curve(*points: tuple[str, int, float]) -> tuple[Robustness, ...]:
        return tuple(Robustness(perturbation=n, severity=s, scores={"accuracy": v}) for n, s, v in points)

    return blank(
        row("sift$x$", robustness=curve(("blur", 1, 0.4), ("blur", 5, 0.2), ("flip", 1, 0.1))),
        row("color", robustness=curve(("blur", 1, 0.5), ("blur", 5, 0.5), ("flip", 1, 0.5))),
        row("oracle"),
    )


def test_the_table_says_what_is_left() -> None:
    assert robustness.grid(shaken()) == [
        ["method", "clean", "blur", "flip", "kept"],
        ["sift$x$", "0.500", "0.300", "0.100", "40%"],
        ["color", "0.500", "0.500", "0.500", "100%"],
    ]
    assert "sift$x$  0.500  0.300  0.100   40%" in table.terminal(shaken())
    assert "| sift$x$ | 0.500 | 0.300 | 0.100 | 40% |" in table.markdown(shaken())
    assert "accuracy blur 5" in table.tidy_csv(shaken()).splitlines()[0]
    for shown in (table.terminal, table.markdown, table.tidy_csv):
        assert "kept" not in shown(blank(row()))


def test_curves_begin_with_the_clean_score() -> None:
    assert robustness.curves(shaken(), "accuracy")["sift$x$"] == {
        "blur": [(0, 0.5), (1, 0.4), (5, 0.2)],
        "flip": [(0, 0.5), (1, 0.1)],
    }


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason='needs pip install "retrieval-bench[train]"')
    robustness.draw(shaken(), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(BenchError, match="run again with --perturb"):
        robustness.draw(blank(row()), tmp_path / "none.png")

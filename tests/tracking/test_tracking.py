"""Records and trainings in TensorBoard and MLflow, read back by the real ones."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.records.files import save
from retrieval_bench.registry import METRICS
from retrieval_bench.system.checkpoint import save_weights
from retrieval_bench.tracking import mlflow_server, tensorboard_folder
from retrieval_bench.tracking.tracked import tracked
from tests.support.command import call
from tests.support.planted import ABOUT, costs, planted
from tests.support.records import failed

RIGHT = {"sift": np.array([1.0, 1.0, 1.0, 0.0]), "color[untrained]": np.array([1.0, 0.0, 1.0, 0.0])}
HISTORY = [
    {"epoch": 1, "loss": 2.0, "accuracy": None, "rate": 0.1, "seconds": 0.0},
    {"epoch": 2, "loss": 1.5, "accuracy": 0.25, "rate": 0.05, "seconds": 0.0},
]


@pytest.fixture
def record(tmp_path: Path) -> Path:
    found = planted(RIGHT, np.arange(4), dict.fromkeys(RIGHT, costs(10, 64)), more=[failed("vgg16")])
    params: dict[str, Any] = {"words": 64, "parts": {"side": 320}}
    rows = tuple(row.model_copy(update={"params": params}) if row.params == {} else row for row in found.record.rows)
    save(found.record.model_copy(update={"rows": rows}), tmp_path / "kept", {"query_ids": np.array([])})
    return tmp_path / "kept"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    import torch

    facts = {
        "dataset": "shop", "images": [], "fingerprint": "ab", "labels": [], "identity": {"mode": "scratch", "lr": 0.1},
        "best_epoch": 2, "history": HISTORY, "version": "0", "commit": None,
    }  # fmt: skip
    save_weights(tmp_path / "net.pth", {"weight": torch.zeros(2)}, facts)
    return tmp_path / "net.pth"


def board(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def test_tensorboard_reads_a_record(record: Path, tmp_path: Path) -> None:
    done = call("track", record, "--to", f"tensorboard:{tmp_path / 'board'}")
    assert done.exit_code == 0, done.output
    assert "2 runs in" in done.stdout
    read = board(tmp_path / "board" / "shop" / "sift")
    assert read.Scalars("map/@r")[0].value == pytest.approx(0.75)
    assert read.Scalars("accuracy")[0].step == 0
    assert read.Scalars("end_to_end_p95 ms")[0].value == pytest.approx(10)
    assert b"parts.side" in read.Tensors("parameters")[0].tensor_proto.string_val[0]
    assert (tmp_path / "board" / "shop" / "color[untrained]").is_dir()
    before = sorted((tmp_path / "board").rglob("*tfevents*"))
    assert call("track", record, "--to", f"tensorboard:{tmp_path / 'board'}").exit_code == 0
    assert sorted((tmp_path / "board").rglob("*tfevents*")) == before


def test_tensorboard_reads_records_as_steps_and_epochs_of_a_training(
    record: Path, weights: Path, tmp_path: Path
) -> None:
    later = planted(
        {"sift": RIGHT["color[untrained]"]}, np.arange(4), {"sift": costs(9)}, created="2026-02-01T00:00:00Z"
    )
    save(later.record, tmp_path / "later", {"query_ids": np.array([])})
    tensorboard_folder.send([tracked(tmp_path / "later"), tracked(record)], tmp_path / "board")
    read = board(tmp_path / "board" / "shop" / "sift")
    assert [(one.step, one.value) for one in read.Scalars("accuracy")] == [(0, 0.75), (1, 0.5)]
    tensorboard_folder.send([tracked(weights)], tmp_path / "trained")
    read = board(tmp_path / "trained" / "shop" / "net")
    assert [(one.step, one.value) for one in read.Scalars("loss")] == [(1, 2.0), (2, 1.5)]
    assert [one.step for one in read.Scalars("validation accuracy")] == [2]


@pytest.mark.long(reason="MLflow makes the tables of its database: 10 s")
@pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed: the extra mlflow has it"
)
@pytest.mark.filterwarnings("ignore")
def test_mlflow_reads_records_and_trainings(record: Path, weights: Path, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    (told,) = mlflow_server.send([tracked(record)], uri)
    assert told.endswith("2 runs in experiment shop")
    assert "is there already" in mlflow_server.send([tracked(record)], uri)[0]
    mlflow_server.send([tracked(weights)], uri)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("shop").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    sift, top = runs["sift"], runs["shop 2026-01-01T00:00:00Z"]
    assert sift.data.metrics["map_at_r"] == 0.75
    assert sift.data.metrics["end_to_end_p95 ms"] == 10
    assert sift.data.params == {"method": "sift", "words": "64", "parts.side": "320"}
    assert sift.data.tags["mlflow.parentRunId"] == top.info.run_id
    assert top.info.status == "FINISHED"
    assert top.data.tags["fingerprint"] == "ab" * 32
    assert {one.path for one in client.list_artifacts(top.info.run_id)} == {"run.json", "table.md"}
    losses = client.get_metric_history(runs["net"].info.run_id, "loss")
    assert [(one.step, one.value) for one in losses] == [(1, 2.0), (2, 1.5)]
    with pytest.raises(BenchError, match="--to mlflow:nowhere://x: MLflow says"):
        mlflow_server.send([tracked(weights)], "nowhere://x")


@pytest.mark.parametrize("kind", ["mlflow", "tensorboard"])
def test_without_the_package_one_sentence_says_how_to_get_it(
    kind: str, record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    done = call("track", record, "--to", f"{kind}:{tmp_path / 'x'}")
    assert done.exit_code == 2
    assert f"pip install 'retrieval-bench[{kind}]'" in done.stderr


def test_mistakes_of_track(record: Path, tmp_path: Path) -> None:
    import torch

    torch.save({"weight": torch.zeros(2)}, tmp_path / "plain.pth")
    (tmp_path / "file").touch()
    for what, to, said in (
        (record, "wandb:x", "write mlflow:URI"),
        (record, "mlflow:", "write mlflow:URI"),
        (record, f"tensorboard:{tmp_path / 'file'}", "cannot be written"),
        (tmp_path / "none.pth", "tensorboard:x", "there is no such file"),
        (tmp_path / "plain.pth", "tensorboard:x", "does not say how it was trained"),
        (tmp_path, "tensorboard:x", "no such record"),
    ):
        done = call("track", what, "--to", to)
        assert done.exit_code == 2, done.output
        assert said in done.stderr
    assert mlflow_server.allowed("recall@10 blur@3?") == "recall_at_10 blur_at_3_"


def test_scores_that_the_rankings_contradict_are_told(tmp_path: Path) -> None:
    described = {"accuracy": ABOUT.model_copy(update={"definition": METRICS["accuracy"].facts["definition"]})}
    found = planted(RIGHT, np.arange(4), dict.fromkeys(RIGHT, costs(10)), rankings=True, metrics=described)
    save(found.record, tmp_path / "kept", dict(found.arrays))
    assert tracked(tmp_path / "kept").doubts == ()
    file = tmp_path / "kept" / "run.json"
    file.write_text(file.read_text("utf-8").replace('"accuracy": 0.75,', '"accuracy": 0.99,'), "utf-8")
    sent = tracked(tmp_path / "kept")
    said = "accuracy is 0.990000 in the record, and 0.750000 by its rankings"
    assert sent.runs[0].params["contradicted"].startswith(said)
    assert "contradicted" not in sent.runs[1].params
    assert "| sift [contradicted] |" in sent.text
    done = call("track", tmp_path / "kept", "--to", f"tensorboard:{tmp_path / 'board'}")
    assert done.exit_code == 0
    assert f"kept: scores of sift: {said}" in done.stderr
    (tmp_path / "kept" / "rankings.npz").write_bytes(b"PK")
    assert tracked(tmp_path / "kept").doubts[0].endswith("; its scores are sent without a look at them")


def test_what_is_damaged_is_one_sentence(record: Path, tmp_path: Path) -> None:
    file = record / "run.json"
    created = json.loads(file.read_text())["created"]
    file.write_text(file.read_text().replace(f'"{created}"', '"yesterday"'))
    with pytest.raises(BenchError, match="created is 'yesterday', and no time such as"):
        tracked(record)
    (tmp_path / "net.pth").write_bytes(b"no weights")
    with pytest.raises(BenchError, match=r"net.pth cannot be read .*; name a file of weights that `train` wrote"):
        tracked(tmp_path / "net.pth")

"""To MLflow: an experiment for each dataset, a run for each record with a run for each method in it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval_bench.core import BenchError
from retrieval_bench.tracking.tracked import Tracked, TrackedRun

MARK = "retrieval_bench.sha256"
"""Tag of a run: the sha256 of the record or training that it is from."""
PARENT, NAME = "mlflow.parentRunId", "mlflow.runName"
_MOST_LETTERS = 500
_AT_ONCE = 100


def send(found: Sequence[Tracked], uri: str) -> list[str]:
    """Write runs; what is there already, by the sha256 of its file, is not written again.

    Args:
        found: records and trainings.
        uri: of a tracking server or of a database, as MLflow writes it: http://HOST:5000, sqlite:///mlflow.db.

    Returns:
        A sentence for each.

    Raises:
        BenchError: The package is missing, or MLflow refuses.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise BenchError("--to mlflow needs the package of that name: pip install 'retrieval-bench[mlflow]'")
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        client = MlflowClient(tracking_uri=uri)
        return [_sent(client, one, uri) for one in sorted(found, key=lambda one: one.when)]
    except (MlflowException, ImportError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BenchError(f"--to mlflow:{uri}: MLflow says: {first}") from None


def _sent(client: Any, one: Tracked, uri: str) -> str:
    experiment = _experiment(client, one.group, uri)
    there = client.search_runs([experiment], f"tags.`{MARK}` = '{one.sha256}'", max_results=1)
    if there:
        return f"{one.name}: is there already, as run {there[0].info.run_id}"
    millis = int(1000 * one.when)
    alone = len(one.runs) == 1 and one.runs[0].name == one.name
    tags = {**one.tags, NAME: one.name}
    top = client.create_run(experiment, start_time=millis, tags=tags).info.run_id
    if alone:
        _fill(client, top, one.runs[0], millis)
    else:
        for run in one.runs:
            own = {**run.tags, PARENT: top, NAME: run.name}
            inner = client.create_run(experiment, start_time=millis, tags=own).info.run_id
            _fill(client, inner, run, millis)
            client.set_terminated(inner, end_time=millis)
        client.log_artifact(top, str(one.file))
        client.log_text(top, one.text, "table.md")
    client.set_tag(top, MARK, one.sha256)  # last: what was cut off is sent again
    client.set_terminated(top, end_time=millis)
    return f"{one.name}: {len(one.runs)} {'run' if len(one.runs) == 1 else 'runs'} in experiment {one.group}"


def _experiment(client: Any, name: str, uri: str) -> str:
    known = client.get_experiment_by_name(name)
    if known is not None:
        return str(known.experiment_id)
    place = None
    if uri.startswith("sqlite:///"):  # else files would lie wherever the command was started
        beside = Path(uri.removeprefix("sqlite:///")).resolve().parent
        place = (beside / "mlartifacts").as_uri()
    return str(client.create_experiment(name, artifact_location=place))


def _fill(client: Any, run: str, one: TrackedRun, millis: int) -> None:
    from mlflow.entities import Metric, Param

    params = [Param(allowed(name), value[:_MOST_LETTERS]) for name, value in one.params.items()]
    metrics = [
        Metric(allowed(name), value, millis, step)
        for step, numbers in one.steps.items()
        for name, value in numbers.items()
    ]
    for start in range(0, max(len(params), len(metrics)), _AT_ONCE):
        end = start + _AT_ONCE
        client.log_batch(run, metrics=metrics[start:end], params=params[start:end])


def allowed(name: str) -> str:
    """A name that MLflow takes: recall@10 as recall_at_10."""
    return re.sub(r"[^\w\-./ ]", "_", name.replace("@", "_at_"))

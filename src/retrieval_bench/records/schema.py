"""The schema of a record: what a run says of its data, its settings, its machine and each method."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
)

SCHEMA_VERSION: Literal[1] = 1

_HEADS = AliasChoices("heads", "classifiers")
"""Records of this schema call their classifiers heads, in files and in the names of arrays."""

Fitted = Literal["nothing to learn", "learned", "from cache"]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class TimeFigure(Model):
    """value None: n samples cannot carry this percentile."""

    value: float | None
    unit: str
    n: int | None = None


class Interval(Model):
    """Where the mean over all such queries is expected to lie; `Statistics` says how sure, and how it is computed."""

    low: float
    high: float


class Pair(Model):
    """Mean of `first` minus mean of `second` over the same queries.

    low, high: its interval; see `Statistics.differences`. p: of the sign-flip test of no difference; p_holm: the same
    after Holm's correction over all pairs of the table.
    """

    first: str
    second: str
    mean: float
    low: float
    high: float
    p: float
    p_holm: float


class Comparison(Model):
    """All pairs of methods by one metric. groups: letters of each method; a shared letter is no real difference."""

    pairs: tuple[Pair, ...]
    groups: dict[str, str]


class Statistics(Model):
    """How intervals and comparisons were computed. clusters: how many labels the queries have.

    resamples: random sign patterns of the tests. intervals, differences: the definition of a mean's interval and of a
    difference's; both empty in records of earlier versions, whose intervals come from a bootstrap that drew labels
    `resamples` times.
    """

    resamples: int
    level: float
    seed: int
    clusters: int
    intervals: str = ""
    differences: str = ""

    @model_serializer(mode="wrap")
    def _as_written(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A record of an earlier version is written again as it was."""
        return {name: value for name, value in serialize(self).items() if value != ""}


class Features(Model):
    """What the method makes of an image and what that occupies."""

    distance: str
    dim: int
    dtype: str
    bytes_per_image: int
    index_bytes: int
    zero_rows: int
    computed: int
    from_cache: int
    fit: Fitted
    learned_from: str | None


class Ties(Model):
    """What the order of equal distances can make of a metric: its worst, mean and best value over all orders."""

    worst: float
    expected: float
    best: float


class PartFacts(Model):
    """One part of a method that has several. weight: what it counts where similarities are added up."""

    name: str
    weight: float | None
    bytes_per_image: int
    zero_rows: int
    fit: Fitted
    weights: dict[str, Any] | None


class ClassifierFacts(Model):
    """A classifier learned on this method's features.

    scores: see classifiers.metrics.judge_classifier. chosen: what it settled on, on train.
    times: `fit`, and `predict_p50` and so on, of the features of one query.
    error: why there are none, in one sentence.
    """

    scores: dict[str, float] = {}
    times: dict[str, TimeFigure] = {}
    chosen: dict[str, Any] = {}
    error: str | None = None


class Robustness(Model):
    """What is left when the queries, and they alone, are perturbed. severity: 1 to 5."""

    perturbation: str
    severity: int = Field(ge=1, le=5)
    scores: dict[str, float]
    intervals: dict[str, Interval] = {}


class Failure(Model):
    kind: str
    sentence: str
    traceback: str | None = None


class OpenSet(Model):
    """How well the nearest distance tells queries without an answer from the others; see evaluation.open_set.

    answerable, unanswerable: how many queries there are of either kind. scores, intervals: `auroc` and `rejected@95`.
    threshold: the distance of `rejected@95`. unavailable: why there are no scores, in a few words.
    """

    answerable: int
    unanswerable: int
    scores: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    threshold: float | None = None
    unavailable: str = ""


class Row(Model):
    """One method on one dataset; `method` is the name with its mark, e.g. "resnet50[untrained]".

    intervals: by metric, for those that are a mean over queries; empty where all queries have one label.
    ties: by metric, for rows in which equal distances decide anything; see ties.py.
    other_processes: what others took of the usable cores while the row was timed, 0 to 1; None, and not written, where
    the system or an earlier version did not say. open_set: None, and not written, where every query has an answer.
    stated: times that the user says and nobody measured, written where there are any. notices: sentences on the files
    that the row's vectors are from, likewise.
    """

    method: str
    family: str
    status: Literal["ok", "failed"]
    scores: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    ties: dict[str, Ties] = {}
    times: dict[str, TimeFigure] = {}
    other_processes: float | None = None
    params: dict[str, Any] = {}
    weights: dict[str, Any] | None = None
    features: Features | None = None
    parts: tuple[PartFacts, ...] = ()
    classifiers: dict[str, ClassifierFacts] = Field(default={}, validation_alias=_HEADS, serialization_alias="heads")
    robustness: tuple[Robustness, ...] = ()
    open_set: OpenSet | None = None
    stated: dict[str, TimeFigure] = {}
    notices: tuple[str, ...] = ()
    error: Failure | None = None

    @model_serializer(mode="wrap")
    def _as_written(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A record of an earlier version is written again as it was."""
        later = ("other_processes", "open_set")
        kept = {name: value for name, value in serialize(self).items() if name not in later or value is not None}
        return {name: value for name, value in kept.items() if name not in ("stated", "notices") or value}


class Skipped(Model):
    split: str
    id: str
    reason: str
    detail: str


class ImageCounts(Model):
    train: int
    gallery: int
    query: int


class DatasetFacts(Model):
    """labels: how many are in play, in the gallery or among the queries. distractors: gallery images that have none."""

    name: str
    spec: str
    root: str | None
    fingerprint: str
    images: ImageCounts
    labels: int
    categories: int
    leave_one_out: bool
    queries_left_out: int
    skipped: tuple[Skipped, ...]
    notices: tuple[str, ...]
    distractors: int = 0

    @model_serializer(mode="wrap")
    def _as_written(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Distractors are written where there are any."""
        return {name: value for name, value in serialize(self).items() if name != "distractors" or value}


class PluginFacts(Model):
    """A plug-in that the run used. package: with its version, where it is installed; None for a file, called `name`.

    sha256: of its source, and of what it imports beside it.
    """

    name: str
    package: str | None
    sha256: str


class Settings(Model):
    """What was asked for. relevance: what makes an image relevant; learn_from: the split that methods learned from; see
    prepare. max_pixels: None where it was the default. decoded_for: the side in pixels that methods wanted, where large
    photos were decoded small; else None. concurrency: how many queries at once were timed. plugins: those that the run
    used. These six are written where they are not as usual."""

    methods: tuple[str, ...]
    classifiers: tuple[str, ...] = Field(default=(), validation_alias=_HEADS, serialization_alias="heads")
    k: tuple[PositiveInt, ...] = Field(min_length=1)
    seed: int
    weights: str
    device: str
    threads: int
    limit: int | None
    backend: str
    depth: int
    perturb: tuple[str, ...] = ()
    severities: tuple[int, ...] = ()
    relevance: str = "label"
    learn_from: str = "train"
    max_pixels: int | None = None
    decoded_for: PositiveInt | None = None
    concurrency: tuple[PositiveInt, ...] = ()
    plugins: tuple[PluginFacts, ...] = ()

    @model_serializer(mode="wrap")
    def _as_written(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A record of an earlier version is written again as it was."""
        usual = {
            "relevance": "label",
            "learn_from": "train",
            "max_pixels": None,
            "decoded_for": None,
            "concurrency": (),
            "plugins": (),
        }
        return {
            name: value
            for name, value in serialize(self).items()
            if name not in usual or (tuple(value) if isinstance(value, list) else value) != usual[name]
        }


class Environment(Model):
    """Where the run was. waiting: how idle threads wait; not written where an earlier version did not say it."""

    version: str
    commit: str | None
    dirty: bool | None
    python: str
    libraries: dict[str, str]
    system: str
    machine: str
    processor: str
    cores: int
    memory_gib: float
    gpu: str | None
    gpu_settings: dict[str, str] = {}
    thread_counts: dict[str, int]
    allocator: str
    waiting: str = ""

    @model_serializer(mode="wrap")
    def _as_written(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A record of an earlier version is written again as it was."""
        return {name: value for name, value in serialize(self).items() if name != "waiting" or value}


class MetricFacts(Model):
    """What a metric's name means; what a record of an earlier version does not say is empty."""

    about: str
    definition: str
    denominator: str = ""
    ties: str = ""
    empty: str = ""
    ceiling: str = ""
    short: str
    at_k: bool
    per_query: bool
    whole_ranking: bool
    higher_is_better: bool
    has_ceiling: bool


class Rankings(Model):
    file: str
    sha256: str


class Record(Model):
    """`ceilings`: what a perfect ranking scores on this dataset, by metric name with cutoff; votes have none.

    perturbations: what each that was asked for does, severity by severity; empty in records of earlier versions.
    controls: see guards.controls; control -> metric -> score. violations: the rules of `guards` that this run breaks,
    one sentence each; it then ends as failed.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    status: Literal["finished", "interrupted", "running", "failed"]
    created: str
    command: tuple[str, ...]
    dataset: DatasetFacts
    settings: Settings
    environment: Environment
    metrics: dict[str, MetricFacts]
    ceilings: dict[str, float]
    perturbations: dict[str, str] = {}
    statistics: Statistics | None = None
    rows: tuple[Row, ...]
    comparisons: dict[str, Comparison] = {}
    controls: dict[str, dict[str, float]] = {}
    violations: tuple[str, ...] = ()
    rankings: Rankings | None = None

    def to_json(self) -> str:
        return (
            json.dumps(self.model_dump(mode="json", by_alias=True), indent=1, allow_nan=False, ensure_ascii=False)
            + "\n"
        )


def find_row(rows: Iterable[Row], method: str) -> Row | None:
    return next((row for row in rows if row.method == method), None)

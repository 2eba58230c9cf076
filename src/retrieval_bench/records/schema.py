"""The schema of a record: what a run says of its data, its settings, its machine and each method.

Texts and lists have a greatest length and numbers a range: a record may come from anybody.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

SCHEMA_VERSION: Literal[1] = 1

_HEADS = AliasChoices("heads", "classifiers")
"""Records of this schema call their classifiers heads, in files and in the names of arrays."""

Fitted = Literal["nothing to learn", "learned", "from cache"]


MOMENT = "%Y-%m-%dT%H:%M:%SZ"
"""How times are written: UTC, to the second, ISO 8601."""
MOST_TEXT = 200_000
"""Characters of any text."""
MOST_ROWS = 10_000

Text = Annotated[str, Field(max_length=10_000)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[int, Field(ge=1, le=2**53)]
Seed = Annotated[int, Field(ge=0, lt=2**64)]
Amount = Annotated[float, Field(ge=0.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Named = Annotated[dict[Text, Any], Field(max_length=MOST_ROWS)]
Scores = Annotated[dict[Text, float], Field(max_length=MOST_ROWS)]
Sentences = Annotated[tuple[str, ...], Field(max_length=100_000)]
Side = Annotated[str, Field(pattern=r"^(image|text|image\+text)$")]
Severity = Annotated[int, Field(ge=1, le=5)]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True, str_max_length=MOST_TEXT)


class TimeFigure(Model):
    """value None: n samples cannot carry this percentile."""

    value: Amount | None
    unit: Text
    n: Count | None = None


class Interval(Model):
    """Where the mean over all such queries is expected to lie; `Statistics` says how sure, and how it is computed."""

    low: float
    high: float


class Pair(Model):
    """Mean of `first` minus mean of `second` over the same queries.

    low, high: its interval; see `Statistics.differences`. p: of the sign-flip test of no difference; p_holm: the same
    after Holm's correction over all pairs of the table.
    """

    first: Text
    second: Text
    mean: float
    low: float
    high: float
    p: Share
    p_holm: Share


class Comparison(Model):
    """All pairs of methods by one metric. groups: letters of each method; a shared letter is no real difference."""

    pairs: Annotated[tuple[Pair, ...], Field(max_length=1_000_000)]
    groups: Annotated[dict[Text, Text], Field(max_length=MOST_ROWS)]


class Statistics(Model):
    """How intervals and comparisons were computed. clusters: how many labels the queries have.

    resamples: random sign patterns of the tests. intervals, differences: the definition of a mean's interval and of a
    difference's; both empty in records of earlier versions, whose intervals come from a bootstrap that drew labels
    `resamples` times.
    """

    resamples: Count
    level: Share
    seed: Seed
    clusters: Count
    intervals: str = ""
    differences: str = ""

    @model_serializer(mode="wrap")
    def _as_written(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A record of an earlier version is written again as it was."""
        return {name: value for name, value in serialize(self).items() if value != ""}


class Features(Model):
    """What the method makes of an image and what that occupies."""

    distance: Text
    dim: Count
    dtype: Text
    bytes_per_image: Count
    index_bytes: Count
    zero_rows: Count
    computed: Count
    from_cache: Count
    fit: Fitted
    learned_from: str | None


class Ties(Model):
    """What the order of equal distances can make of a metric: its worst, mean and best value over all orders."""

    worst: float
    expected: float
    best: float


class PartFacts(Model):
    """One part of a method that has several. weight: what it counts where similarities are added up."""

    name: Text
    weight: float | None
    bytes_per_image: Count
    zero_rows: Count
    fit: Fitted
    weights: Named | None


class ClassifierFacts(Model):
    """A classifier learned on this method's features.

    scores: see classifiers.metrics.judge_classifier. chosen: what it settled on, on train.
    times: `fit`, and `predict_p50` and so on, of the features of one query.
    error: why there are none, in one sentence.
    """

    scores: Scores = {}
    times: Annotated[dict[Text, TimeFigure], Field(max_length=MOST_ROWS)] = {}
    chosen: Named = {}
    error: str | None = None


class Robustness(Model):
    """What is left when the queries, and they alone, are perturbed. severity: 1 to 5."""

    perturbation: Text
    severity: Severity
    scores: Scores
    intervals: Annotated[dict[Text, Interval], Field(max_length=MOST_ROWS)] = {}


class Failure(Model):
    """What ended a method. A text that is too long, as code of others may raise it, is cut."""

    kind: Text
    sentence: str
    traceback: str | None = None

    @field_validator("sentence", "traceback", mode="before")
    @classmethod
    def _cut(cls, text: Any) -> Any:
        return f"{text[: MOST_TEXT // 2]} ..." if isinstance(text, str) and len(text) > MOST_TEXT else text


class OpenSet(Model):
    """How well the nearest distance tells queries without an answer from the others; see evaluation.open_set.

    answerable, unanswerable: how many queries there are of either kind. scores, intervals: `auroc` and `rejected@95`.
    threshold: the distance of `rejected@95`. unavailable: why there are no scores, in a few words.
    """

    answerable: Count
    unanswerable: Count
    scores: Scores = {}
    intervals: Annotated[dict[Text, Interval], Field(max_length=MOST_ROWS)] = {}
    threshold: float | None = None
    unavailable: str = ""


class ThresholdFacts(Model):
    """Search by a threshold; see evaluation.thresholds.

    threshold: the largest distance that is near enough, chosen on train. train: precision, recall and f1 there; scores,
    intervals: the same of the queries. curve: (threshold, precision, recall) of the queries, for a picture. queries:
    how many were looked at. unavailable: why there is nothing of all this, in a few words.
    """

    threshold: float | None = None
    train: Scores = {}
    scores: Scores = {}
    intervals: Annotated[dict[Text, Interval], Field(max_length=MOST_ROWS)] = {}
    curve: Annotated[tuple[tuple[float, Share, Share], ...], Field(max_length=1_000)] = ()
    queries: Count = 0
    unavailable: str = ""


class Difference(Model):
    """Of two means of the same queries; low and high are None where all queries have one label."""

    mean: float
    low: float | None = None
    high: float | None = None


class Approximation(Model):
    """What a search that may miss neighbours found, beside the exact search of the same features.

    k, found: of the k nearest rows, the share that it finds, ties counted as found; found_interval: of its mean. depth:
    to which its rankings go. exact: scores of exact search to the same depth; differences: of the row's scores and
    these, query by query.
    """

    k: Count
    depth: Count
    found: Share
    found_interval: Interval | None = None
    exact: Scores = {}
    differences: Annotated[dict[Text, Difference], Field(max_length=MOST_ROWS)] = {}


class Row(Model):
    """One method on one dataset; `method` is the name with its mark, e.g. "resnet50[untrained]".

    intervals: by metric, for those that are a mean over queries; empty where all queries have one label.
    ties: by metric, for rows in which equal distances decide anything; see ties.py.
    other_processes: what others took of the usable cores while the row was timed, 0 to 1; None, and not written, where
    the system or an earlier version did not say. open_set: None, and not written, where every query has an answer.
    by_threshold: None, and not written, where it was not asked for. approximation: likewise, of exact search.
    stated: times that the user says and nobody measured, written where there are any. notices: sentences on the files
    that the row's vectors are from, likewise. query, gallery: what a query is and what an item of the gallery is, see
    methods.modalities; not written where both are images. inconsistent: what is wrong where images that are described
    again have other features, likewise.
    """

    method: Text
    family: Text
    status: Literal["ok", "failed"]
    scores: Scores = {}
    intervals: Annotated[dict[Text, Interval], Field(max_length=MOST_ROWS)] = {}
    ties: Annotated[dict[Text, Ties], Field(max_length=MOST_ROWS)] = {}
    times: Annotated[dict[Text, TimeFigure], Field(max_length=MOST_ROWS)] = {}
    other_processes: Amount | None = None
    params: Named = {}
    weights: Named | None = None
    features: Features | None = None
    parts: Annotated[tuple[PartFacts, ...], Field(max_length=MOST_ROWS)] = ()
    classifiers: dict[str, ClassifierFacts] = Field(default={}, validation_alias=_HEADS, serialization_alias="heads")
    robustness: Annotated[tuple[Robustness, ...], Field(max_length=MOST_ROWS)] = ()
    open_set: OpenSet | None = None
    by_threshold: ThresholdFacts | None = None
    approximation: Approximation | None = None
    stated: Annotated[dict[Text, TimeFigure], Field(max_length=MOST_ROWS)] = {}
    notices: Sentences = ()
    inconsistent: Text = ""
    query: Side = "image"
    gallery: Side = "image"
    error: Failure | None = None

    @model_serializer(mode="wrap")
    def _as_written(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A record of an earlier version is written again as it was."""
        later = ("other_processes", "open_set", "by_threshold", "approximation")
        kept = {name: value for name, value in serialize(self).items() if name not in later or value is not None}
        kept = {
            name: value for name, value in kept.items() if name not in ("stated", "notices", "inconsistent") or value
        }
        if (kept["query"], kept["gallery"]) == ("image", "image"):
            del kept["query"], kept["gallery"]
        return kept


class Skipped(Model):
    split: Text
    id: str
    reason: Text
    detail: str


class ImageCounts(Model):
    train: Count
    gallery: Count
    query: Count


class DatasetFacts(Model):
    """labels: how many are in play, in the gallery or among the queries. distractors: gallery images that have none."""

    name: Text
    spec: Text
    root: Text | None
    fingerprint: Sha256
    images: ImageCounts
    labels: Count
    categories: Count
    leave_one_out: bool
    queries_left_out: Count
    skipped: Annotated[tuple[Skipped, ...], Field(max_length=10_000_000)]
    notices: Sentences
    distractors: Count = 0

    @model_serializer(mode="wrap")
    def _as_written(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Distractors are written where there are any."""
        return {name: value for name, value in serialize(self).items() if name != "distractors" or value}


class PluginFacts(Model):
    """A plug-in that the run used. package: with its version, where it is installed; None for a file, called `name`.

    sha256: of its source, and of what it imports beside it.
    """

    name: Text
    package: Text | None
    sha256: Sha256


class Settings(Model):
    """What was asked for. relevance: what makes an image relevant; learn_from: the split that methods learned from; see
    prepare. max_pixels: None where it was the default. decoded_for: the side in pixels that methods wanted, where large
    photos were decoded small; else None. concurrency: how many queries at once were timed. plugins: those that the run
    used. thresholds: whether search by a threshold was judged. engine: who described images and searched, where that
    was not this machine alone. These eight are written where they are not as usual."""

    methods: Annotated[tuple[Text, ...], Field(max_length=MOST_ROWS)]
    classifiers: tuple[Text, ...] = Field(
        default=(), max_length=MOST_ROWS, validation_alias=_HEADS, serialization_alias="heads"
    )
    k: tuple[Positive, ...] = Field(min_length=1, max_length=MOST_ROWS)
    seed: Seed
    weights: Text
    device: Text
    threads: Positive
    limit: Positive | None
    backend: Text
    depth: Count
    perturb: Annotated[tuple[Text, ...], Field(max_length=MOST_ROWS)] = ()
    severities: Annotated[tuple[Severity, ...], Field(max_length=5)] = ()
    relevance: Text = "label"
    learn_from: Text = "train"
    max_pixels: Positive | None = None
    decoded_for: Positive | None = None
    concurrency: Annotated[tuple[Positive, ...], Field(max_length=MOST_ROWS)] = ()
    plugins: Annotated[tuple[PluginFacts, ...], Field(max_length=MOST_ROWS)] = ()
    thresholds: bool = False
    engine: Text = "local"

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
            "thresholds": False,
            "engine": "local",
        }
        return {
            name: value
            for name, value in serialize(self).items()
            if name not in usual or (tuple(value) if isinstance(value, list) else value) != usual[name]
        }


class Environment(Model):
    """Where the run was. waiting: how idle threads wait; not written where an earlier version did not say it."""

    version: Text
    commit: Text | None
    dirty: bool | None
    python: Text
    libraries: Annotated[dict[Text, Text], Field(max_length=MOST_ROWS)]
    system: Text
    machine: Text
    processor: Text
    cores: Count
    memory_gib: Amount
    gpu: Text | None
    gpu_settings: Annotated[dict[Text, Text], Field(max_length=MOST_ROWS)] = {}
    thread_counts: Annotated[dict[Text, Count], Field(max_length=MOST_ROWS)]
    allocator: Text
    waiting: Text = ""

    @model_serializer(mode="wrap")
    def _as_written(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A record of an earlier version is written again as it was."""
        return {name: value for name, value in serialize(self).items() if name != "waiting" or value}


class MetricFacts(Model):
    """What a metric's name means; what a record of an earlier version does not say is empty."""

    about: Text
    definition: Text
    denominator: Text = ""
    ties: Text = ""
    empty: Text = ""
    ceiling: Text = ""
    short: Text
    at_k: bool
    per_query: bool
    whole_ranking: bool
    higher_is_better: bool
    has_ceiling: bool


class Rankings(Model):
    file: Annotated[str, Field(pattern=r"^[^/\\]{1,255}$")]
    sha256: Sha256


class Record(Model):
    """`ceilings`: what a perfect ranking scores on this dataset, by metric name with cutoff; votes have none.

    perturbations: what each that was asked for does, severity by severity; empty in records of earlier versions.
    controls: see guards.controls; control -> metric -> score. violations: the rules of `guards` that this run breaks,
    one sentence each; it then ends as failed.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    status: Literal["finished", "interrupted", "running", "failed"]
    created: Text
    command: Sentences
    dataset: DatasetFacts
    settings: Settings
    environment: Environment
    metrics: Annotated[dict[Text, MetricFacts], Field(max_length=MOST_ROWS)]
    ceilings: Scores
    perturbations: Annotated[dict[Text, Text], Field(max_length=MOST_ROWS)] = {}
    statistics: Statistics | None = None
    rows: Annotated[tuple[Row, ...], Field(max_length=MOST_ROWS)]
    comparisons: Annotated[dict[Text, Comparison], Field(max_length=MOST_ROWS)] = {}
    controls: Annotated[dict[Text, Scores], Field(max_length=MOST_ROWS)] = {}
    violations: Sentences = ()
    rankings: Rankings | None = None

    def to_json(self) -> str:
        return (
            json.dumps(self.model_dump(mode="json", by_alias=True), indent=1, allow_nan=False, ensure_ascii=False)
            + "\n"
        )


def find_row(rows: Iterable[Row], method: str) -> Row | None:
    return next((row for row in rows if row.method == method), None)

"""What a user decides about a service."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from retrieval_bench.serving.requests.guards import Guarded
from retrieval_bench.serving.requests.uploads import UploadLimits


@dataclass(frozen=True)
class ServingSettings:
    """What the HTTP side of a service is made with.

    Args:
        guarded: who may ask.
        upload: what a search may send.
        adding: what a request that adds items may send.
        keep: keep pictures that are sent, encoded anew, in the folder of feedback.
        feedback: where judgements are kept.
        title: shown by pages.
        record: shown beside the search; None: there is none.
        record_root: where its dataset lies now, if it was moved.
    """

    guarded: Guarded = field(default_factory=Guarded)
    upload: UploadLimits = field(default_factory=UploadLimits)
    adding: UploadLimits = field(default_factory=lambda: UploadLimits(bytes=200 << 20, seconds=300.0, files=1000))
    keep: bool = False
    feedback: Path = Path("feedback")
    title: str = "retrieval_bench"
    record: Path | None = None
    record_root: Path | None = None

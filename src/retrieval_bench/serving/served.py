"""What every route of one application shares, and how work that takes a while leaves the event loop free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import anyio
from starlette.requests import Request

from retrieval_bench.serving.answering.catalogue import Catalogue
from retrieval_bench.serving.answering.column_calibration import ColumnCalibrations
from retrieval_bench.serving.answering.explanations import Explanations
from retrieval_bench.serving.answering.feedback import FeedbackLog
from retrieval_bench.serving.answering.service import SearchService
from retrieval_bench.serving.pictures import ShownPictures
from retrieval_bench.serving.record_page import RecordPage
from retrieval_bench.serving.requests.settings import ServingSettings

_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class Served:
    """Everything that routes work with; `served(request)` gives it."""

    service: SearchService
    catalogue: Catalogue
    pictures: ShownPictures
    feedback: FeedbackLog
    settings: ServingSettings
    threads: anyio.CapacityLimiter
    calibrations: ColumnCalibrations
    explanations: Explanations
    record: RecordPage | None

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """Do something that takes a while, in a thread."""
        return await anyio.to_thread.run_sync(work, limiter=self.threads)


def served(request: Request) -> Served:
    """Of the application that this request is for."""
    return cast(Served, request.app.state.served)

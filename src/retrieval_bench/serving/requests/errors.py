"""Why a request is not served, known to those who search and to those who speak HTTP."""

from __future__ import annotations

from retrieval_bench.core import BenchError


class RequestRefused(Exception):
    """A request that is not served. status: of HTTP; the message is one sentence for the client.

    retry_after: seconds; 0: to ask again is of no use. unread: the body was not read to its end, so that nothing else
    can come through this connection.
    """

    def __init__(self, status: int, sentence: str, retry_after: int = 0, *, unread: bool = False) -> None:
        super().__init__(sentence)
        self.status, self.retry_after, self.unread = status, retry_after, unread


class NoSuchThing(BenchError):
    """What a request names is not there (any more)."""


class QueueFull(Exception):
    """More waits than the bound allows. retry_after: seconds after which to ask again."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the service is busy; ask again in {retry_after} s")
        self.retry_after = retry_after

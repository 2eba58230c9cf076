"""What is our own fault: the whole of it in the log, and one sentence for the client."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval_bench.serving.requests.errors import RequestRefused
from retrieval_bench.serving.requests.refusals import refusal

log = logging.getLogger("retrieval_bench")


class BugsTold:
    """What is our fault goes to the log, and the client hears that it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = False

        async def sent(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except Exception:  # anything at all: what routes expect was told before, so this is ours
            log.exception("%s %s", scope.get("method"), getattr(scope.get("route"), "path", "of no route"))
            if began:
                raise
            await refusal(RequestRefused(500, "this is a bug of the service; its log says more"))(scope, receive, send)

"""What a person sees while something runs: progress with an ETA and log lines, on stderr."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

LOGGER = logging.getLogger("retrieval_bench")


class Display:
    """`with Display() as display: work(progress=display)`: one bar for the current step, silent off a terminal.

    While it is open the library's log lines go to stderr too, above the bar.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            auto_refresh=False,  # no thread of its own, which would disturb what is being timed
            disable=not sys.stderr.isatty(),  # FORCE_COLOR makes a log colourful, not a terminal
        )
        self._handler = _ConsoleHandler(self.console)
        self._what = ""
        self._shown_at = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """total 0: how long it takes is not known."""
        if what != self._what:
            self._what = what
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._bar.add_task(what, total=total or None)
            self._shown_at = 0.0
        self._bar.update(self._bar.task_ids[0], completed=done, total=total or None)
        if time.monotonic() - self._shown_at > 0.1:
            self._bar.refresh()
            self._shown_at = time.monotonic()

    def say(self, sentence: str) -> None:
        self.console.print(Text(sentence), soft_wrap=True)

    def __enter__(self) -> Display:
        LOGGER.addHandler(self._handler)
        self._level = LOGGER.level
        LOGGER.setLevel(logging.INFO)
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        LOGGER.setLevel(self._level)
        LOGGER.removeHandler(self._handler)


class _ConsoleHandler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else ""
        word = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        self._console.print(Text(f"{word}{record.getMessage()}", style=style), soft_wrap=True)

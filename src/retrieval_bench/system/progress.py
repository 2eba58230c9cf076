"""How far a long task has come, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""progress(what, done, total): called often; whoever shows it decides how often."""
Count = Callable[[int, int], None]
"""count(done, total): the same of one task that needs no name."""


def silent(what: str, done: int, total: int) -> None:
    """The progress that shows nothing."""

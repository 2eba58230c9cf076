"""What was found in one place, and what to do about it."""

from __future__ import annotations

from typing import NamedTuple


class Condition(NamedTuple):
    """state: what is there. advice: what to do, "" where nothing needs to be done."""

    state: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.state}; {self.advice}" if self.advice else self.state

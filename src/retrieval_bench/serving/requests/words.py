"""The words that a client sends: as many as are read, and no more."""

from __future__ import annotations

from retrieval_bench.serving.requests.errors import RequestRefused

MOST_CHARACTERS = 2000
"""Of a text that is searched for, added or shown."""


def checked_text(text: str) -> str:
    """The text without blanks around it.

    Args:
        text: as a form or an address has it.

    Returns:
        It, "" where there is none.

    Raises:
        RequestRefused: It is too long (413).
    """
    text = text.replace("\r\n", "\n").strip()
    if len(text) > MOST_CHARACTERS:
        raise RequestRefused(413, f"the text has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read")
    return text

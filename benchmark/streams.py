"""stdin, stdout and stderr, before anything is opened that could take their place."""

from __future__ import annotations

import os
import sys


def open_what_is_closed() -> None:
    """Where stdin, stdout or stderr is closed (`>&-`), the next file or pipe would get its number, and what is printed
    would be written there."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for ever

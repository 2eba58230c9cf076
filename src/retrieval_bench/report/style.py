"""The style sheet of a page, and the policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from importlib.resources import files


def style_sheet(series: Iterable[int]) -> str:
    """The CSS of a page whose charts have series of these numbers; pointing at a legend's entry fades the others."""
    css = files("retrieval_bench.report").joinpath("page.css").read_text(encoding="utf-8")
    rules = [
        f"figure:has(.key-{number}:hover) polyline.line:not(.on-{number}),"
        f".plotted:has(.key-{number}:hover) polyline.line:not(.on-{number}){{opacity:.12}}"
        for number in sorted(set(series))
    ]
    return "\n".join([css.rstrip(), *rules, ""])


def policy(css: str) -> str:
    """A Content-Security-Policy for a page with this one style sheet: no script, no connection, no form, images inline.

    The sheet is allowed by its hash, so that not even a style that slipped in would count.
    """
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode("ascii")
    return f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"

"""Templates to pages: what they show is text, wherever it came from."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from retrieval_bench.report.markup import visible
from retrieval_bench.serving.client.answers import JOINED, picture_address
from retrieval_bench.serving.page_state import FACET, SORTS
from retrieval_bench.serving.requests.guards import FIELD

_HERE = Path(__file__).parent


def rendered(template: str, **values: Any) -> str:
    """The page of a template in `templates/`."""
    return _templates().get_template(template).render(**values)


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["visible"] = visible
    environment.globals.update(
        FIELD=FIELD, FACET=FACET, JOINED=JOINED, SORTS=SORTS, static=_static, picture=picture_address
    )
    return environment


@cache
def _static(name: str) -> str:
    """The address of a file of ours, with its digest, so that a browser never shows an old one."""
    content = (_HERE / "static" / name).read_bytes()
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"

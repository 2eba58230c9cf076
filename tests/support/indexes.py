"""An index small enough for tests, and ways to damage it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retrieval_bench.indexing.build import build
from retrieval_bench.indexing.description import DESCRIPTION_FILE, Description, content_of, read_description
from tests.support.runs import plan
from tests.support.shop import shop

METHODS = ("phash", "color", "sift:words=16+color", "phash+color+rrf", "sift:words=16+verify=20")
LABELS, EACH = 4, 4


def built_at(folder: Path, *methods: str, **changes: Any) -> Path:
    """An index of the shop; changes: of the arguments of `build`."""
    build(plan(shop(LABELS, EACH), *(methods or METHODS)), folder, **changes).close()
    return folder


def described_as(folder: Path, **changes: Any) -> Description:
    """Write index.json with other facts, as another version of this program might have written it."""
    description = read_description(folder)
    changed = Description.model_validate(description.model_dump() | changes)
    (folder / DESCRIPTION_FILE).write_bytes(content_of(changed))
    return changed

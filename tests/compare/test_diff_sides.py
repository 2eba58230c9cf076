"""A row of one name that compares something else in the second record is not compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval_bench.compare.diff import diff
from retrieval_bench.core import NotComparable
from retrieval_bench.experiment.runner import run
from tests.support.runs import plan
from tests.support.shop import shop


def test_another_side_is_not_comparable(tmp_path: Path) -> None:
    record = run(plan(shop(), "hsv"), tmp_path)
    other = record.model_copy(update={"rows": (record.rows[0].model_copy(update={"query": "text"}),)})
    with pytest.raises(NotComparable, match="hsv compares image in the first record and text-to-image in the second"):
        diff(record, other)

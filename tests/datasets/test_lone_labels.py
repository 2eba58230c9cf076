"""Labels that nothing can answer, or that nobody asks for: what --limit and screening make of them."""

from __future__ import annotations

from retrieval_bench.core import Dataset
from retrieval_bench.datasets.splits import limit
from retrieval_bench.images.screening import screen
from tests.support.splits import a_split, counted_dataset


def test_limit_with_leave_one_out_takes_a_label_of_one_image_last() -> None:
    """Alone with itself it finds nothing, and in its place another label would keep a pair."""
    shared = a_split("both", [0, 1, 1, 2, 2])
    dataset = Dataset("test", a_split("train", [0]), shared, shared, ("a", "b", "c"), leave_one_out=True)
    assert limit(dataset, 4).gallery.labels.tolist() == [1, 1, 2, 2]


def test_a_label_without_queries_may_lose_its_gallery_without_a_word() -> None:
    dataset = counted_dataset([], train=[], gallery=["x0", "bad1", "x2"], query=["y0", "y2"])
    screened, skipped = screen(dataset)
    assert [bad.id for bad in skipped] == ["gallery/1"]
    assert screened.gallery.labels.tolist() == [0, 2]
    assert screened.notices == ()

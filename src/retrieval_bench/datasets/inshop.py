"""In-shop Clothes Retrieval of DeepFashion: 7,982 garments, photographed in several views and poses.

Liu, Luo, Qiu, Wang, Tang: "DeepFashion: Powering Robust Clothes Recognition and Retrieval with Rich Annotations",
CVPR 2016.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from retrieval_bench.core import BenchError, Dataset, Split, printable
from retrieval_bench.datasets.published import columns_of, home_of, in_order, named_split
from retrieval_bench.registry import DATASETS

SOURCE = "its authors give it away as In-shop Clothes Retrieval Benchmark, for research only"
LIST = "list_eval_partition.txt"
COLUMNS = ("image_name", "item_id", "evaluation_status")


@DATASETS("inshop", about="In-shop Clothes of DeepFashion (Liu et al., CVPR 2016): 7,982 garments, from your copy")
def inshop(root: Path | None) -> Dataset:
    """Read list_eval_partition.txt, whose last column says train, query or gallery.

    The published protocol is these three. Its Recall@K, or top-K accuracy, is our hit_rate@K. Labels are item ids;
    categories the folders of the images, as WOMEN/Dresses.

    Args:
        root: the folder that holds Eval/ and Img/, or the list and img/.
    """
    listed = home_of("inshop", root, LIST, SOURCE, ("Eval",)) / LIST
    home = home_of("inshop", root, "img", SOURCE, ("Img",))
    rows = columns_of(listed, COLUMNS, skip=2)
    states = {row[2] for row in rows}
    if unknown := sorted(states - {"train", "query", "gallery"}):
        raise BenchError(f"{printable(listed)}: {unknown[0]!r} is none of train, query, gallery")
    labels = in_order(row[1] for row in rows)
    kinds = tuple(sorted({_kind(row[0]) for row in rows}))

    def split(name: str) -> Split:
        own = [row for row in rows if row[2] == name]
        paths = [row[0] for row in own]
        return named_split(home, paths, [row[1] for row in own], labels, list(map(_kind, paths)), kinds)

    return Dataset("inshop", split("train"), split("gallery"), split("query"), labels, kinds)


def _kind(path: str) -> str:
    """img/WOMEN/Dresses/id_00000002/02_1_front.jpg: WOMEN/Dresses."""
    return "/".join(PurePosixPath(path).parts[1:-2]) or "(none)"

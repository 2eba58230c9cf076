"""`embeddings:FILE`: vectors that another program computed, one for each image, found by the image's id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np

from retrieval_bench.core import BenchError, Dataset, Distance, Extractor, Setup, Split, printable
from retrieval_bench.extractors.deep.postprocess import Kept, PostProcess
from retrieval_bench.registry import EXTRACTORS, Range
from retrieval_bench.stored.joining import IdJoin
from retrieval_bench.stored.vectors import ROWS_AT_ONCE, StoredVectors, read_vectors, sha256_of, there

OF_NAME: Mapping[str, Distance] = {"cosine": "cosine", "euclidean": "euclidean", "inner": "inner_product"}
UNIT_WITHIN = 1e-3
"""How far from 1 the length of a row may be that counts as normalised: float16 rounds by so much."""


class Embeddings:
    """Vectors of files. Nothing is read before it is wanted.

    Args:
        called: the method, for sentences.
        files: split -> its file; "" -> that of all other splits.
        vectors: name of the vectors within the files; "": told by name or type.
        ids: the same of the ids.
        distance: how the vectors are compared as they are.
        after: what is done to them first.
        ms: what one query takes, as the user knows it; 0: not known.
    """

    distance: Distance
    wanted: int = 1  # it looks at no pixel

    def __init__(
        self,
        called: str,
        files: Mapping[str, Path],
        vectors: str,
        ids: str,
        distance: Distance,
        after: PostProcess,
        ms: float,
    ) -> None:
        self._called, self._files, self._names, self._after = called, files, (vectors, ids), after
        self.stated_ms = ms or None
        self.distance = distance if _is_plain(after) else after.distance
        self.learned = after.learned
        self._read: dict[Path, tuple[StoredVectors, IdJoin]] = {}
        used = list(dict.fromkeys(files.values()))
        self.weights = {
            "source": " + ".join(printable(file.name) for file in used),
            "sha256": " + ".join(sha256_of(file) for file in used),
        }

    def fit(self, train: Split) -> Self:
        """Learn what `whiten` and the like need of the vectors of train."""
        if self.learned:
            found = self._after.fit(self._raw(train, "train"), train.labels)
            for name, array in found.items():
                setattr(self, name, array)
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        raise BenchError(f"{self._called} has the vectors of a file and makes none of pixels; name another method here")

    def describe_split(self, split: Split, what: str) -> np.ndarray:
        """(n, d), the vectors of these images. what: the split that they are of, as "gallery"."""
        rows = self._raw(split, what)
        if _is_plain(self._after):
            return rows
        learned = {name: getattr(self, name) for name in self.learned}
        kept: np.ndarray = np.empty((len(rows), self._after.width(rows.shape[1], learned)), self._after.dtype)
        for place, row in enumerate(rows):
            kept[place] = self._after.apply(row, learned)
        return kept

    def meet(self, dataset: Dataset) -> tuple[str, ...]:
        """Look for every image of a dataset; sentences on what is odd about the files.

        BenchError where an image of gallery or query has no vector, or two images would have one.
        """
        for twice in (False, True):  # first the ids alone, so that no likeness takes the row of an id
            for name, split in dataset.splits.items():
                self._table(name)[1].rows(split, alike=twice)
        for name in ("gallery", "query"):
            self._table(name)[1].rows_of_all(dataset.splits[name])
        sentences = []
        for file, (found, join) in self._read.items():
            if join.left:
                sentences.append(
                    f"{join.left:,} of {len(found.ids):,} rows of {printable(file.name)} are of no image here"
                )
            if join.by_name:
                sentences.append(
                    f"{join.by_name:,} images have their vector in {printable(file.name)} by file name alone"
                )
        return (*sentences, *self._odd_lengths())

    def _odd_lengths(self) -> list[str]:
        if self.distance not in ("inner_product", "euclidean"):
            return []
        least, most = np.inf, 0.0
        for found, _ in self._read.values():
            for start in range(0, len(found.rows), ROWS_AT_ONCE):
                some = found.rows[start : start + ROWS_AT_ONCE]
                lengths = np.sqrt(np.einsum("ij,ij->i", some, some, dtype=np.float64))
                least, most = min(least, float(lengths.min())), max(most, float(lengths.max()))
        if abs(least - 1) <= UNIT_WITHIN and abs(most - 1) <= UNIT_WITHIN:
            return []
        what = (
            "inner products prefer long ones" if self.distance == "inner_product" else "lengths count in the distance"
        )
        return [f"the vectors are not normalised (lengths {least:.3g} to {most:.3g}): {what}"]

    def _raw(self, split: Split, what: str) -> np.ndarray:
        found, join = self._table(what)
        if what == "train" and "train" in self._files and (join.rows(split) < 0).all():
            found, join = self._table("gallery")  # which methods learn from with --learn-from gallery
        return found.rows[join.rows_of_all(split)]

    def _table(self, what: str) -> tuple[StoredVectors, IdJoin]:
        file = self._files.get("query" if what == "unanswerable" else what, self._files[""])
        if file not in self._read:
            vectors = read_vectors(file, self._called, *self._names)
            for other, (known, _) in self._read.items():
                if known.rows.shape[1] != vectors.rows.shape[1]:
                    raise BenchError(
                        f"{self._called}: {printable(file)} holds vectors of {vectors.rows.shape[1]} numbers and "
                        f"{printable(other)} of {known.rows.shape[1]}; all splits need the same"
                    )
            self._read[file] = vectors, IdJoin(vectors.ids, file, self._called)
        return self._read[file]


def _is_plain(after: PostProcess) -> bool:
    return not after.learned and after.power == 1 and after.kept == "float32"


@EXTRACTORS(
    "embeddings",
    family="file",
    about="vectors from a file: npy, npz, parquet, HDF5, safetensors",
    argument="path",
    by_id=True,
)
def embeddings(
    setup: Setup,
    *,
    path: str = "",
    gallery: str = "",
    query: str = "",
    train: str = "",
    vectors: str = "",
    ids: str = "",
    distance: Literal["cosine", "euclidean", "inner"] = "cosine",
    power: Annotated[float, Range(0, 1, above=True)] = 1.0,
    centre: bool = False,
    whiten: Annotated[int, Range(0)] = 0,
    level: Annotated[float, Range(0, 1)] = 1.0,
    dtype: Kept = "float32",
    ms: Annotated[float, Range(0)] = 0.0,
) -> Extractor:
    """Vectors that another program computed, joined to the images by id, path or file name.

    Args:
        setup: what the run fixes for every method.
        path: the file: .npy (with NAME.ids.txt or ids.txt beside it), .npz, .parquet, .h5, .hdf5 or .safetensors.
        gallery: a file of the gallery's vectors alone; empty: they are in the first file.
        query: a file of the queries' vectors alone, likewise.
        train: a file of train's vectors alone, likewise.
        vectors: what the array, column, dataset or tensor of vectors is called, or how the names of the d columns
            begin; empty: told by name or type.
        ids: the same of the ids; for .npy and .safetensors the text file that holds them, one a line.
        distance: how vectors are compared: `cosine`, `euclidean`, or `inner` (inner product).
        power: sign(x) |x|^power is taken of every number, before anything is learned.
        centre: subtract the mean of the training images.
        whiten: principal components that are kept, learned from train; 0 keeps the vector whole.
        level: how far these are whitened, 0 (not at all) to 1 (fully).
        dtype: how an image's vector is kept: `float32`, `float16`, `int8`, or `bits`, compared by Hamming distance.
        ms: milliseconds of one query from image to result, as you measured them elsewhere; shown as stated. 0: not
            known.
    """
    called = f"embeddings:{printable(Path(path).name)}"
    after = PostProcess(power, centre, whiten, level, "no", dtype, setup.seed).checked(called)
    if not _is_plain(after) and distance != "cosine":
        raise BenchError(
            f"{called}: power, centre, whiten and dtype give vectors of length 1; drop distance={distance}"
        )
    if ms < 0:
        raise BenchError(f"{called}: ms={ms:g} must be above 0, or 0 where it is not known")
    given = {"": path, "gallery": gallery, "query": query, "train": train}
    files = {split: Path(name) for split, name in given.items() if name}
    for file in files.values():
        there(file, called)
    if ids and len(set(files.values())) > 1 and any(f.suffix in (".npy", ".safetensors") for f in files.values()):
        raise BenchError(f"{called}: ids={ids} is of one file; put the ids of each into NAME.ids.txt beside it")
    return Embeddings(called, files, vectors, ids, OF_NAME[distance], after, ms)

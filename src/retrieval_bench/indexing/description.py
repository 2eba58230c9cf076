"""What an index says of itself: `index.json`, which is written when the index is built and never changes after that."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from retrieval_bench.core import BenchError, Distance, printable
from retrieval_bench.records.schema import Count, Model, Sha256, Text
from retrieval_bench.system.files import open_regular, read_regular
from retrieval_bench.system.npz import read_arrays

FORMAT = 1
DESCRIPTION_FILE = "index.json"
PROBES_FILE = "probes.npz"
MOST_BYTES = 64_000_000
"""Of index.json; one of a hundred methods has a hundredth of it."""
MOST_BYTES_OF_ARRAYS = 8 << 30

StoredDtype = Literal["float32", "float16", "int8"]
"""How numbers are kept; bits are always kept as bits."""


class ArrayFacts(Model):
    """One array of one method. name: of the part that describes it. width: numbers a row; of bits, bytes.

    described: the dtype that the part gives; kept: the one that lies in the file. Of a part that counts words, a
    checksum of an item's words is what lies there, and the words are made of its text again.
    """

    name: Text
    described: Literal["uint8", "int8", "float16", "float32"]
    kept: Literal["uint8", "int8", "float16", "float32"]
    width: Annotated[int, Field(ge=1, le=2**31)]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in the file."""
        return self.width * np.dtype(self.kept).itemsize


class MethodFacts(Model):
    """One method. text: as one writes it. name: with its mark, as a run shows it.

    recipes: of each part, all that a feature depends on besides its picture. joining: sha256 of the code that joins
    parts. learned_from: the content of the images that were learned from; None: nothing was learned. incomparable: why
    the distances of two queries cannot be compared; "" where they can. whole: one array alone does not tell what is
    near: parts are joined, rankings re-ranked, or a part has a search of its own.
    """

    text: Text
    name: Text
    family: Text
    distance: Distance
    incomparable: Text
    whole: bool
    learned_from: Sha256 | None
    recipes: tuple[dict[str, Any], ...]
    joining: Sha256
    arrays: Annotated[tuple[ArrayFacts, ...], Field(min_length=1)]


TableName = Annotated[str, Field(pattern=r"^(retrieval_bench_index_[0-9a-f]{12}_)?[0-9]+$")]
"""It becomes a part of SQL."""


class StoreFacts(Model):
    """A vector store that holds the features. backend: its kind with options, as in `--store`, without an address.

    dsn: the address of a server, without a password; None: it lies in the folder of the index. tables: of each method.
    """

    backend: Text
    dsn: Text | None
    tables: Annotated[tuple[TableName, ...], Field(min_length=1)]


class FileFacts(Model):
    """A file that never changes."""

    bytes: Count
    sha256: Sha256


class Description(Model):
    """Everything but the items. files: path in the folder -> what it holds. store: None: features lie in files."""

    format: Literal[1]
    created: Text
    version: Text
    dataset: Text
    dataset_name: Text
    data_root: Text | None
    limit: int | None
    learn_from: Text
    seed: Count
    weights: Text
    device: Text
    max_pixels: Annotated[int, Field(ge=1)]
    wanted: Count
    dtype: StoredDtype
    methods: Annotated[tuple[MethodFacts, ...], Field(min_length=1, max_length=1000)]
    files: dict[str, FileFacts]
    skipped: dict[str, Count]
    notices: tuple[str, ...]
    store: StoreFacts | None = None


def features_path(generation: int, method: int, array: int) -> str:
    """Where the rows of an array lie in the folder."""
    return f"features/{generation}/{method}-{array}.bin"


def learned_path(method: int) -> str:
    """Where that lies which a method learned."""
    return f"learned/{method}.npz"


def judged_path(method: int) -> str:
    """Where the dataset's own queries lie, judged."""
    return f"judged/{method}.npz"


def content_of(description: Description) -> bytes:
    """The bytes of index.json: the description, and a checksum of it."""
    facts = description.model_dump(mode="json")
    if description.store is None:  # as before there were stores
        del facts["store"]
    return (json.dumps({"check": _check(facts), **facts}, indent=1, allow_nan=False) + "\n").encode()


def read_description(folder: Path) -> Description:
    """Read index.json.

    Args:
        folder: the index.

    Returns:
        What it says.

    Raises:
        BenchError: There is no index, the file is damaged, or it is of another version of the format.
    """
    file = folder / DESCRIPTION_FILE
    try:
        content = read_regular(file, MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise BenchError(
            f"{printable(folder)}: no index is there; make one with `index build --out {printable(folder)}`"
        ) from None
    except OSError as error:
        raise BenchError(f"{printable(file)}: cannot be read ({error.strerror})") from None
    try:
        facts = json.loads(content)
        if not isinstance(facts, dict):
            raise ValueError("it holds no object")
        check = facts.pop("check", None)
        if type(facts.get("format")) is int and facts["format"] != FORMAT:
            raise BenchError(
                f"{printable(file)}: format {facts['format']}, and this version reads format {FORMAT}; build the index "
                "again, or use the version that wrote it"
            )
        description = Description.model_validate_json(json.dumps(facts))
        if check != _check(facts) or content != content_of(description):
            raise ValueError("its checksum is another")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "as a whole"
        raise BenchError(f"{printable(file)} is damaged: {where}: {first['msg']}; build the index again") from None
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{printable(file)} is damaged: {error}; build the index again") from None
    return description


def read_file(folder: Path, name: str, facts: FileFacts) -> dict[str, np.ndarray]:
    """The arrays of a file that never changes, compared with its checksum first; BenchError names a damaged one."""
    file = folder / name
    try:
        with open_regular(file, min(facts.bytes, MOST_BYTES_OF_ARRAYS)) as opened:
            if sha256_of(opened) != facts.sha256:
                raise ValueError("its sha256 is not the one that the index has noted")
            return read_arrays(opened)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BenchError(f"{printable(file)} is damaged: {why}; build the index again") from None


def sha256_of(file: IO[bytes]) -> str:
    """Of all bytes of a file that is open for reading."""
    digest = hashlib.sha256()
    while some := file.read(1 << 20):
        digest.update(some)
    return digest.hexdigest()


def _check(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode()).hexdigest()


def plain(value: Any) -> Any:
    """The same as JSON has it: numpy's numbers as numbers, tuples as lists, what is nothing of these as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)

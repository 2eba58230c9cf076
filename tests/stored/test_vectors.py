"""Files of vectors: every format gives the same rows, and what is wrong with a file is one sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.stored.vectors import read_vectors

IDS = ("a/1.jpg", "a/2.jpg", "b/1.jpg")
ROWS = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [-1, -2, 3, 0]], np.float32)


def npy(file: Path, rows: np.ndarray = ROWS, ids: tuple[str, ...] = IDS) -> Path:
    np.save(file, rows)
    file.with_suffix(".ids.txt").write_text("".join(f"{item}\n" for item in ids), encoding="utf-8")
    return file


def npz(file: Path, rows: np.ndarray = ROWS, ids: tuple[str, ...] = IDS) -> Path:
    np.savez(file, embeddings=rows, ids=np.array(ids))
    return file


def parquet(file: Path, rows: np.ndarray = ROWS, ids: tuple[str, ...] = IDS) -> Path:
    pa, pq = (
        pytest.importorskip(name, reason="the extra parquet is not installed")
        for name in ("pyarrow", "pyarrow.parquet")
    )
    pq.write_table(pa.table({"id": list(ids), "vector": list(rows)}), file)
    return file


def fixed_parquet(file: Path, rows: np.ndarray = ROWS, ids: tuple[str, ...] = IDS) -> Path:
    pa, pq = (
        pytest.importorskip(name, reason="the extra parquet is not installed")
        for name in ("pyarrow", "pyarrow.parquet")
    )
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    pq.write_table(pa.table({"path": list(ids), "emb": lists}), file)
    return file


def wide_parquet(file: Path, rows: np.ndarray = ROWS, ids: tuple[str, ...] = IDS) -> Path:
    pa, pq = (
        pytest.importorskip(name, reason="the extra parquet is not installed")
        for name in ("pyarrow", "pyarrow.parquet")
    )
    pq.write_table(pa.table({"id": list(ids), **{f"e{place}": column for place, column in enumerate(rows.T)}}), file)
    return file


def hdf5(file: Path, rows: np.ndarray = ROWS, ids: tuple[str, ...] = IDS) -> Path:
    h5py = pytest.importorskip("h5py", reason="the extra hdf5 is not installed")
    with h5py.File(file, "w") as opened:
        opened["shop/features"] = rows
        opened["shop/ids"] = list(ids)
    return file


def safetensors(file: Path, rows: np.ndarray = ROWS, ids: tuple[str, ...] = IDS) -> Path:
    from safetensors.numpy import save_file

    save_file({"vectors": rows}, file, {"ids": json.dumps(list(ids))})
    return file


FORMATS = {
    "npy": (npy, "v.npy"),
    "npz": (npz, "v.npz"),
    "parquet": (parquet, "v.parquet"),
    "fixed-parquet": (fixed_parquet, "v.parquet"),
    "wide-parquet": (wide_parquet, "v.parquet"),
    "hdf5": (hdf5, "v.h5"),
    "safetensors": (safetensors, "v.safetensors"),
}
EACH = pytest.mark.parametrize(("write", "name"), FORMATS.values(), ids=FORMATS)
Write = Callable[..., Path]


@EACH
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int8])
def test_every_format_gives_the_same_rows(write: Write, name: str, kind: type, tmp_path: Path) -> None:
    found = read_vectors(write(tmp_path / name, ROWS.astype(kind)), "embeddings:v")
    assert found.ids == IDS
    assert found.rows.dtype == np.float32
    np.testing.assert_array_equal(found.rows, ROWS)


@EACH
def test_two_vectors_of_one_id_are_refused(write: Write, name: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"has two vectors of 'a/1\.jpg', in rows 1 and 3"):
        read_vectors(write(tmp_path / name, ids=("a/1.jpg", "a/2.jpg", "a/1.jpg")), "embeddings:v")


@EACH
def test_numbers_that_are_none_are_refused(write: Write, name: str, tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[1, 2], rows[2, 0] = np.nan, np.inf
    with pytest.raises(BenchError, match=r"NaN or infinite numbers in 2 of 3 vectors; the first is that of 'a/2\.jpg'"):
        read_vectors(write(tmp_path / name, rows), "embeddings:v")


@pytest.mark.parametrize("write", [npy, npz, hdf5, safetensors])
def test_ids_that_are_too_few_are_counted(write: Write, tmp_path: Path) -> None:
    name = next(name for one, name in FORMATS.values() if one is write)
    with pytest.raises(BenchError, match="holds 3 vectors and 2 ids"):
        read_vectors(write(tmp_path / name, ids=IDS[:2]), "embeddings:v")


@EACH
def test_a_file_that_was_cut_is_refused(write: Write, name: str, tmp_path: Path) -> None:
    file = write(tmp_path / name)
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(BenchError, match=r"^embeddings:v: .*v\.\w+ is no"):
        read_vectors(file, "embeddings:v")


def test_ids_may_lie_in_ids_txt_or_in_a_named_file(tmp_path: Path) -> None:
    file = npy(tmp_path / "v.npy")
    own = file.with_suffix(".ids.txt")
    own.rename(tmp_path / "ids.txt")
    assert read_vectors(file, "embeddings:v").ids == IDS
    (tmp_path / "ids.txt").rename(tmp_path / "other.txt")
    assert read_vectors(file, "embeddings:v", ids=str(tmp_path / "other.txt")).ids == IDS
    with pytest.raises(BenchError, match=r"keeps no ids and there is no file v\.ids\.txt or ids\.txt beside it"):
        read_vectors(file, "embeddings:v")


def test_safetensors_without_metadata_has_its_ids_beside_it(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"vectors": ROWS}, tmp_path / "v.safetensors")
    (tmp_path / "ids.txt").write_text("\n".join(IDS), encoding="utf-8")
    assert read_vectors(tmp_path / "v.safetensors", "embeddings:v").ids == IDS
    save_file({"vectors": ROWS}, tmp_path / "v.safetensors", {"ids": "a, b"})
    with pytest.raises(BenchError, match="is no JSON list"):
        read_vectors(tmp_path / "v.safetensors", "embeddings:v")


def test_several_arrays_are_chosen_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", clip=ROWS, dino=2 * ROWS, keys=np.array(IDS), groups=np.array(["x", "y", "z"]))
    with pytest.raises(BenchError, match="may hold its ids in keys, groups; say which by ids=NAME"):
        read_vectors(tmp_path / "v.npz", "embeddings:v")
    with pytest.raises(BenchError, match="may hold its vectors in clip, dino; say which by vectors=NAME"):
        read_vectors(tmp_path / "v.npz", "embeddings:v", ids="keys")
    found = read_vectors(tmp_path / "v.npz", "embeddings:v", "dino", "keys")
    np.testing.assert_array_equal(found.rows, 2 * ROWS)
    with pytest.raises(BenchError, match="has no vectors called 'vit'; it has clip, dino"):
        read_vectors(tmp_path / "v.npz", "embeddings:v", "vit", "keys")


def test_columns_are_chosen_by_how_their_names_begin(tmp_path: Path) -> None:
    pa, pq = (
        pytest.importorskip(name, reason="the extra parquet is not installed")
        for name in ("pyarrow", "pyarrow.parquet")
    )
    columns = {"id": [7, 8, 9], "price": [1.0, 2.0, 3.0], "e0": ROWS[:, 0], "e1": ROWS[:, 1], "label": ["x", "y", "z"]}
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    found = read_vectors(tmp_path / "v.parquet", "embeddings:v", "e", "id")
    assert found.ids == ("7", "8", "9")
    np.testing.assert_array_equal(found.rows, ROWS[:, :2])
    with pytest.raises(BenchError, match="has no vectors called 'x'"):
        read_vectors(tmp_path / "v.parquet", "embeddings:v", "x", "id")


def test_lists_of_several_lengths_and_missing_values_are_refused(tmp_path: Path) -> None:
    pa, pq = (
        pytest.importorskip(name, reason="the extra parquet is not installed")
        for name in ("pyarrow", "pyarrow.parquet")
    )
    for vectors, ids, sentence in (
        ([[1.0], [1.0, 2.0]], ["a", "b"], "do not all have one length"),
        ([[1.0], None], ["a", "b"], "rows without a value in vector"),
        ([[1.0], [None]], ["a", "b"], "vectors with a number missing"),
        ([[1.0], [2.0]], ["a", None], "rows without a value in id"),
    ):
        pq.write_table(
            pa.table({"id": ids, "vector": pa.array(vectors, pa.list_(pa.float32()))}), tmp_path / "v.parquet"
        )
        with pytest.raises(BenchError, match=sentence):
            read_vectors(tmp_path / "v.parquet", "embeddings:v")


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (ROWS.astype(np.uint8), "vectors in .* holds uint8; vectors are float16, float32, float64, int8"),
        (ROWS.astype(np.complex64), "holds complex64; vectors are"),
        (ROWS[:, 0], "has the shape 3; a row for each image is wanted, n x d"),
        (ROWS[:, :, None], "a row for each image is wanted, n x d"),
    ],
)
def test_what_is_wrong_with_the_vectors_of_an_npz_file_is_told(rows: np.ndarray, sentence: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", ids=np.array(IDS), vectors=rows)
    with pytest.raises(BenchError, match=sentence):
        read_vectors(tmp_path / "v.npz", "embeddings:v")


def test_text_is_taken_for_ids_before_whole_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", table=ROWS, labels=np.arange(3), keys=np.array(IDS))
    assert read_vectors(tmp_path / "v.npz", "embeddings:v").ids == IDS
    np.savez(tmp_path / "v.npz", table=ROWS, labels=np.arange(3))
    assert read_vectors(tmp_path / "v.npz", "embeddings:v").ids == ("0", "1", "2")


def test_numbers_too_large_for_float32_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="NaN or infinite numbers in 1 of 3"):
        read_vectors(npy(tmp_path / "v.npy", np.where(ROWS == 8, 1e300, ROWS.astype(np.float64))), "embeddings:v")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="there is no file"):
        read_vectors(tmp_path / "v.npy", "embeddings:v")
    (tmp_path / "v.pkl").write_bytes(b"")
    with pytest.raises(BenchError, match=r"must end in \.npy, \.npz, \.parquet, \.h5, \.hdf5, \.safetensors"):
        read_vectors(tmp_path / "v.pkl", "embeddings:v")
    np.savez(tmp_path / "v.npz", vectors=ROWS, ids=np.array(IDS, object), allow_pickle=True)
    with pytest.raises(BenchError, match="save text as an array of str, not of objects"):
        read_vectors(tmp_path / "v.npz", "embeddings:v")
    npy(tmp_path / "v.npy", ROWS[0])
    with pytest.raises(BenchError, match="has the shape 4; a row for each image is wanted, n x d"):
        read_vectors(tmp_path / "v.npy", "embeddings:v")
    npy(tmp_path / "v.npy", ROWS.astype(np.int64))
    with pytest.raises(BenchError, match="holds int64; vectors are float16, float32, float64, int8"):
        read_vectors(tmp_path / "v.npy", "embeddings:v")
    npy(tmp_path / "v.npy", ROWS[:0], ())
    with pytest.raises(BenchError, match="holds no vector"):
        read_vectors(tmp_path / "v.npy", "embeddings:v")


@pytest.mark.parametrize(("name", "module", "extra"), [("v.parquet", "pyarrow", "parquet"), ("v.h5", "h5py", "hdf5")])
def test_a_missing_package_is_a_sentence(
    name: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BenchError, match=rf"pip install 'retrieval-bench\[{extra}\]'"):
        read_vectors(tmp_path / name, "embeddings:v")

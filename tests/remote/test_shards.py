"""Tar shards in the layout of WebDataset."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.datasets.webdataset import webdataset
from retrieval_bench.images.reading import encode_png
from retrieval_bench.remote.place import root_of
from tests.support.shop import picture
from tests.support.web import web_folder

pytestmark = pytest.mark.usefixtures("own_downloads")


@pytest.fixture
def own_downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("retrieval_bench.remote.content_cache.cache_root", lambda: tmp_path / "downloads")


def shard(file: Path, items: dict[str, bytes]) -> None:
    file.parent.mkdir(exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, content in items.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Four shards of four labels each; labels by .cls in two of them, else by .json."""
    for number in range(4):
        items: dict[str, bytes] = {}
        for label in range(4):
            stem = f"{number}{label}"
            items[f"{stem}.png"] = encode_png(picture(label, number))
            facts = {"label": f"product-{label}", "caption": f"picture {stem}", "shop": f"s{label % 2}"}
            items[f"{stem}.json"] = json.dumps(facts).encode()
            if number < 2:
                items[f"{stem}.cls"] = f"product-{label}\n".encode()
        shard(tmp_path / "shards" / f"part-{number:02}.tar", items)
    return tmp_path / "shards"


def test_shards(shards: Path) -> None:
    here = webdataset(shards)
    assert {name: len(split) for name, split in here.splits.items() if name != "train"} != {"gallery": 0, "query": 0}
    assert here.label_names == tuple(f"product-{label}" for label in range(4))
    assert sum(map(len, here.splits.values())) == 16
    assert here.query.texts is not None
    assert here.query.texts[0] == f"picture {here.query.ids[0]}"
    with web_folder(shards) as web:
        there = webdataset(root_of(f"{web.url}/part-{{00..03}}.tar"))
    braces = webdataset(shards / "part-{00..03}.tar")
    assert here.fingerprint == there.fingerprint == braces.fingerprint
    assert webdataset(shards, label="shop").label_names == ("s0", "s1")
    mapped = webdataset(shards, splits="part-00:train,part-01:query,part-0:gallery")
    assert [len(split) for split in mapped.splits.values()] == [4, 8, 4]


def test_items_that_are_not_taken_whole_are_counted(tmp_path: Path) -> None:
    png = {name: encode_png(picture(number, 0)) for number, name in enumerate("abcd")}
    items = {f"{name}.front.png": png[name] for name in "abc"} | {f"{name}.cls": name.encode() for name in "abc"}
    shard(tmp_path / "odd" / "a.tar", items | {"a.back.png": png["d"], "d.cls": b"d"})
    found = webdataset(tmp_path / "odd", splits="a:gallery+query")
    assert len(found.gallery) == 3
    assert found.notices[:2] == (
        "items without an image, which are left out: 1",
        "items with several images, of which the first is taken: 1",
    )


def test_what_is_wrong_with_shards(shards: Path, tmp_path: Path) -> None:
    cases = {
        "no label": {"a.png": b"x"},
        "not valid JSON": {"a.png": b"x", "a.json": b"{"},
        "not an object": {"a.png": b"x", "a.json": b"[]"},
        "no image in": {"a.cls": b"x"},
        r"label in 'a\.json' is \{\"x\": 1\}; it must be text or a whole number": {
            "a.png": b"x",
            "a.json": b'{"label": {"x": 1}}',
        },
        "'a' has no label": {"a.png": b"x", "a.json": b'{"label": null}'},
        r"'a\.cls' is not UTF-8; write it anew in UTF-8": {"a.png": b"x", "a.cls": "café".encode("latin-1")},
    }
    for told, items in cases.items():
        shard(tmp_path / "bad" / "a.tar", items)
        with pytest.raises(BenchError, match=told):
            webdataset(tmp_path / "bad")
    for root, told in (
        (tmp_path, "holds none"),
        (shards / "part-{3..1}.tar", "counts from 3 to 1"),
        (shards / "part-{00..04}.tar", r"part-04\.tar cannot be read: No such file"),
    ):
        with pytest.raises(BenchError, match=told):
            webdataset(root)
    with pytest.raises(BenchError, match="begins with none of the names"):
        webdataset(shards, splits="train:train,test:query")

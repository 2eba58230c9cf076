"""What URLs name, and which may be read."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.remote.place import (
    HOSTS,
    Address,
    RemotePlace,
    address_of,
    allow_hosts,
    is_allowed,
    root_of,
    whole_path,
)


@pytest.mark.parametrize(
    "url",
    ["https://host:8080//a/../b.csv?x=http://c", "zip://a/manifest.csv::https://host/shop.zip", "s3://bucket//key/"],
)
def test_a_url_survives_as_a_path(url: str) -> None:
    place = root_of(url)
    assert isinstance(place, Path)
    assert [str(place), whole_path(place), str(pickle.loads(pickle.dumps(place)))] == [url] * 3
    assert f"{place}" == url


def test_a_path_stays_a_path() -> None:
    assert type(root_of("C:/photos")) is type(root_of("a/b.zip")) is type(Path())
    assert RemotePlace("zip://a/list.jsonl::x.zip").suffix == ".jsonl"
    assert RemotePlace("https://host/list.CSV?key=a.b").name == "list.CSV"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/x.zip", Address("a/x.zip", "zip")),
        ("zip://in/m.csv::a/x.zip", Address("a/x.zip", "zip", "in/m.csv")),
        ("tar://::s3://bucket/x", Address("s3://bucket/x", "tar")),
        ("https://h/x.tar?key=1", Address("https://h/x.tar?key=1", "tar")),
        ("file:///a%20b/x.zip", Address("/a b/x.zip", "zip")),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert address_of(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ftp://h/x", "ftp:// is not read; known are http://, https://"),
        ("zip://a.csv", "write zip://NAME::ARCHIVE"),
        ("zip://a::tar://b::c.tar", "write zip://NAME::ARCHIVE"),
        ("https://h/a::b", "no other is read inside another"),
        ("https:///a", "no whole address"),
        ("http://h:99999/a", "no whole address"),
        ("https://me:secret@h/a", "password"),
    ],
)
def test_wrong_urls(text: str, told: str) -> None:
    with pytest.raises(BenchError, match=told) as caught:
        address_of(text)
    assert "secret" not in str(caught.value)


def test_allowed_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOSTS, "a.example")
    allow_hosts(["B.example:8080", "bucket"])

    def allowed(url: str, *own: str) -> bool:
        return is_allowed(address_of(url), frozenset(own))

    assert allowed("https://a.example/x")
    assert allowed("https://a.example:444/x")
    assert allowed("http://b.example:8080/x")
    assert not allowed("http://b.example/x")
    assert allowed("s3://bucket/x")
    assert not allowed("https://localhost:9200/x", "localhost:8000")
    assert not allowed("https://a.example.evil/x")
    with pytest.raises(BenchError, match="write its name alone"):
        allow_hosts(["https://a.example"])

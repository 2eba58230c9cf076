"""Files of stores of objects and clusters, by the drivers of fsspec."""

from __future__ import annotations

from typing import Any, NamedTuple

from retrieval_bench.core import BadImage, BenchError, printable
from retrieval_bench.remote.limits import CONNECT_SECONDS, MOST_BYTES, Again, Limits, asked, limits
from retrieval_bench.remote.place import address_of

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "hdfs": "pyarrow", "abfs": "adlfs"}
"""Who reads a scheme -> the package that brings the driver."""

SHOWN = 160


class Stored(NamedTuple):
    """bytes of a file, and what tells its versions apart ("" where nothing does)."""

    size: int
    stamp: str


def look(url: str) -> Stored:
    """Size and version of one file. Raises BadImage where it is missing, BenchError where nobody answers."""
    return _asked(url, lambda driver, path: _stored(driver.info(path)))


def content(url: str, start: int, end: int) -> bytes:
    """Bytes start .. end (exclusive) of a file. Raises as `look`, and BadImage for more than the limits allow."""
    most = limits().most
    if end - start > most:
        raise BadImage(
            "too many bytes", f"{end - start:,} bytes; at most {most:,} are read, or as many as {MOST_BYTES} says"
        )

    def read(driver: Any, path: str) -> bytes:
        found: bytes = driver.cat_file(path, start=start, end=end) if end > start else b""
        if len(found) != end - start:
            raise Again(f"it ends after {len(found):,} of {end - start:,} bytes")
        return found

    return _asked(url, read)


def listed(url: str) -> dict[str, Stored]:
    """Every file below a folder, by its name there. Raises BenchError where it cannot be listed."""

    def read(driver: Any, path: str) -> dict[str, Stored]:
        top = path.rstrip("/") + "/"
        driver.invalidate_cache()
        found = driver.find(path, detail=True)
        return {name[len(top) :]: _stored(facts) for name, facts in found.items() if name.startswith(top)}

    try:
        return _asked(url, read)
    except BadImage as bad:
        raise BenchError(f"{url} cannot be listed: {bad.detail}") from None


def _stored(facts: Any) -> Stored:
    if facts.get("type") == "directory":
        raise BadImage("not a file", "a directory has this name")
    told = next((facts[key] for key in ("ETag", "etag", "md5Hash", "content_md5") if facts.get(key)), "")
    when = next((facts[key] for key in ("LastModified", "mtime", "updated", "last_modified") if facts.get(key)), "")
    return Stored(int(facts["size"] or 0), str(told) or (f"{when} {facts['size']}" if when else ""))


def _asked(url: str, work: Any) -> Any:
    driver, path = _driver(url)

    def once(_: Limits) -> Any:
        try:
            return work(driver, path)
        except FileNotFoundError:
            raise BadImage("missing file", "the store has no such file") from None
        except (PermissionError, NotADirectoryError, IsADirectoryError) as error:
            raise BadImage("refused", f"the store refuses it ({_one_line(error)})") from None
        except (Again, BadImage, BenchError):
            raise
        except Exception as error:  # a driver raises what its library does
            if type(error).__name__ in ("NoCredentialsError", "DefaultCredentialsError", "PartialCredentialsError"):
                raise BenchError(f"{url}: the driver finds no key; give it one as its own documentation says") from None
            raise Again(_one_line(error), last=True) from None  # the driver has asked several times itself

    return asked(once, url, address_of(url).host)


def _driver(url: str) -> tuple[Any, str]:
    """The driver for a URL, and the path as it has it."""
    scheme = address_of(url).scheme
    try:
        import fsspec
    except ImportError:
        raise BenchError(
            f"{url} needs fsspec, which is not installed; install it by pip install 'retrieval-bench[remote]'"
        ) from None
    try:
        driver, path = fsspec.core.url_to_fs(url, **_options(scheme, limits()))
    except ImportError:
        package = PACKAGES[scheme]
        raise BenchError(
            f"{url} needs the driver {package}, which is not installed; install it by pip install {package}"
        ) from None
    except Exception as error:  # a driver raises what its library does, also where its settings are wrong
        raise BenchError(f"{url}: the driver cannot begin: {_one_line(error)}") from None
    if scheme == "s3":
        driver.retries = 2  # of its own; 5 of them make a minute where nobody answers
    return driver, path


def _options(scheme: str, allowed: Limits) -> dict[str, Any]:
    if scheme != "s3":
        return {}
    seconds = {"connect_timeout": min(CONNECT_SECONDS, allowed.timeout), "read_timeout": allowed.timeout}
    return {"config_kwargs": {**seconds, "retries": {"max_attempts": 1}}}


def _one_line(error: Exception) -> str:
    return printable(" ".join(f"{error}".split()))[:SHOWN] or type(error).__name__

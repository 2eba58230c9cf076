"""Connections to PostgreSQL, and its errors as sentences that hold no password."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retrieval_bench.core import BenchError
from retrieval_bench.search.stores.postgres_server import MISSING

VARIABLE = "RETRIEVAL_BENCH_DSN"
SECRETS = ("password", "sslpassword", "oauth_client_secret")
_WAIT_S = 10


def psycopg_loaded() -> Any:
    """The client library; BenchError where it is missing."""
    try:
        import psycopg
    except ImportError:
        raise BenchError(MISSING.format(what="psycopg")) from None
    logger = logging.getLogger("psycopg")
    if not logger.handlers:  # what it logs of a lost connection, our sentence says
        logger.addHandler(logging.NullHandler())
    return psycopg


def without_password(dsn: str) -> str:
    """Where a server is, to be shown: `user@host:port/database`."""
    psycopg = psycopg_loaded()
    try:
        known = psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.Error:  # its own sentence would repeat the text, with the password in it
        raise BenchError(
            f"pgvector: the address of the server cannot be read; write it as postgresql://user@host:5432/database in "
            f"{VARIABLE}, and a password into PGPASSWORD or ~/.pgpass"
        ) from None
    user = f"{known['user']}@" if "user" in known else ""
    port = f":{known['port']}" if "port" in known else ""
    return f"{user}{known.get('host') or known.get('hostaddr') or 'localhost'}{port}/{known.get('dbname', '')}"


def without_secrets(dsn: str) -> str:
    """The same address as `name=value` pairs, without what must be kept nowhere."""
    psycopg = psycopg_loaded()
    without_password(dsn)
    known = psycopg.conninfo.conninfo_to_dict(dsn)
    shown: str = psycopg.conninfo.make_conninfo(**{name: known[name] for name in sorted(known) if name not in SECRETS})
    return shown


def has_password(dsn: str) -> bool:
    """Whether a password stands in the address itself."""
    psycopg = psycopg_loaded()
    without_password(dsn)
    return bool(psycopg.conninfo.conninfo_to_dict(dsn).get("password"))


def connect(dsn: str, *, bound: bool = False) -> Any:
    """Connect, each statement a transaction of its own.

    Args:
        dsn: the address of the server, as a URL or as `name=value` pairs.
        bound: what is wanted lies on this server alone, so no sentence advises another.

    Returns:
        The connection, on which the types of pgvector are known.

    Raises:
        BenchError: No server, a wrong password, something else behind the port, no database, or no pgvector there.
    """
    psycopg = psycopg_loaded()
    place = without_password(dsn)
    given = psycopg.conninfo.conninfo_to_dict(dsn)
    try:
        connection = psycopg.connect(dsn, autocommit=True, connect_timeout=given.get("connect_timeout", _WAIT_S))
    except psycopg.Error as error:
        raise BenchError(_no_connection(place, str(error), bound)) from None
    try:
        with said(place):
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            found = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
            if tuple(map(int, found[0].split(".")[:2])) < (0, 8):
                raise BenchError(
                    f"pgvector: {place} has pgvector {found[0]}; 0.8 or later is needed, for iterative scans"
                )
    except BaseException:
        connection.close()
        raise
    return connection


def _no_connection(place: str, text: str, bound: bool) -> str:
    text = " ".join(text.split())
    if re.search(r"password authentication failed|no password supplied", text):
        return (
            f"pgvector: {place} takes no such password; put the right one into {VARIABLE}, into PGPASSWORD, or into "
            "~/.pgpass"
        )
    if re.search(r"invalid response|unexpected|timeout|closed the connection|message", text):
        return (
            f"pgvector: what answers at {place} is no PostgreSQL, or does not answer within {_WAIT_S} s; the port may "
            f"be taken by another program: give another one in {VARIABLE}"
        )
    if re.search(r"refused|No such file|could not translate|resolve|No route|unreachable", text):
        if bound:
            return f"pgvector: there is no server at {place}, and the vectors of the index lie there; start it"
        return (
            f"pgvector: there is no server at {place}; start it, correct {VARIABLE}, or leave that out, and a server "
            "of our own is started"
        )
    last = text.rpartition("FATAL:")[2].strip()
    return f"pgvector: {place} refuses the connection ({last[:200]}); correct {VARIABLE}"


def _is_full(log: Path | None) -> bool:
    """Whether a server that went away said before that its disk is full: it ends where it cannot write its journal."""
    if log is None:
        return False
    try:
        return "No space left" in log.read_text(encoding="utf-8", errors="replace")[-4_000:]
    except OSError:
        return False


def _full(place: str) -> BenchError:
    return BenchError(
        f"pgvector: the disk of the server {place} is full; make room there, or set TMPDIR to a place with room "
        "for a server of our own"
    )


@contextlib.contextmanager
def said(place: str, log: Path | None = None) -> Iterator[None]:
    """Turn what a server in trouble says into one sentence; a wrong statement of ours stays a bug.

    Args:
        place: where the server is, without a password.
        log: what the server writes of its troubles, where we can read it.
    """
    psycopg = psycopg_loaded()
    try:
        yield
    except psycopg.errors.DiskFull:
        raise _full(place) from None
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
        if "extension" not in str(error):
            raise
        raise BenchError(f"pgvector: {place} has no pgvector; install the extension there") from None
    except psycopg.errors.InsufficientPrivilege as error:
        raise BenchError(
            f"pgvector: the user of {place} may not do that ({error.diag.message_primary}); connect as one who may "
            "create tables and the extension vector"
        ) from None
    except psycopg.OperationalError as error:
        text = error.diag.message_primary or " ".join(str(error).split())
        lost = error.sqlstate is None or error.sqlstate.startswith(("57P", "08"))
        if lost and _is_full(log):
            raise _full(place) from None
        raise BenchError(
            f"pgvector: the server {place} went away in the middle of the work; all rows that it acknowledged are "
            "safe: start it, and run this again"
            if lost
            else f"pgvector: the server {place} cannot go on ({text[:200]}); give it what it lacks, and run this again"
        ) from None

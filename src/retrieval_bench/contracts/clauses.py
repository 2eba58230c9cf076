"""Clauses of a contract, checked one after the other: one that crashes has failed, and the others are checked all the
same."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from retrieval_bench.core import BenchError
from retrieval_bench.system.python_sources import short

C = TypeVar("C")


@dataclass(frozen=True)
class ClauseVerdict:
    """One clause of the contract. verdict "n/a": the clause says nothing about this part, or cannot be reached."""

    part: str
    clause: str
    verdict: Literal["kept", "broken", "n/a"]
    detail: str


class BrokenClause(Exception):
    """The clause is not kept; the message says how."""


class NotApplicable(Exception):
    """The clause says nothing about this part; the message says why."""


def verdicts(
    part: str, clauses: Mapping[str, Callable[[C], str]], case: C, first: Collection[str]
) -> list[ClauseVerdict]:
    """Check a part of a method.

    Args:
        part: its name.
        clauses: clause -> what checks it: a detail where it is kept, BrokenClause where it is not.
        case: what they are checked on.
        first: clauses without which nothing else can be reached.

    Returns:
        One verdict a clause, in their order.
    """
    found: list[ClauseVerdict] = []
    for clause, keeps in clauses.items():
        missing = next((one for one in found if one.clause in first and one.verdict != "kept"), None)
        if missing is not None:
            why = "is broken" if missing.verdict == "broken" else "does not apply"
            found.append(ClauseVerdict(part, clause, "n/a", f"not reached, as the clause {missing.clause!r} {why}"))
            continue
        verdict: Literal["kept", "broken", "n/a"] = "kept"
        try:
            detail = keeps(case)
        except NotApplicable as reason:
            verdict, detail = "n/a", str(reason)
        except (BrokenClause, BenchError) as reason:
            verdict, detail = "broken", str(reason)
        except (Exception, SystemExit) as error:  # whatever the code of others raises
            verdict, detail = "broken", f"failed: {short(error)}"
        found.append(ClauseVerdict(part, clause, verdict, detail))
    return found

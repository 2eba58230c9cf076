"""Methods that see no label, so that labels can be held out afterwards."""

from __future__ import annotations

from dataclasses import replace

from retrieval_bench.core import BenchError
from retrieval_bench.methods.parse import Method
from retrieval_bench.registry import JOINS, parse

TRAINED = ("convnet", "oracle")
"""Methods whose features are made from labels."""
BLIND_JOINS = ("concat", "early")
"""Joins to one vector that look at no label."""


def without_labels(method: Method) -> Method:
    """The method itself; one that joins by what labels say is joined by `concat` where no join was named.

    Raises BenchError where the method learns from labels.
    """
    trained = next((spec for spec in method.members if spec.entry.name in TRAINED), None)
    tuned = next((spec for spec in method.members if spec.resolved.get("tune") == "head"), None)
    if trained is not None or tuned is not None:
        raise BenchError(
            f"method {str(method)!r} learns from labels, so that none could be held out to say how often proposals are "
            f"right; {'drop tune=head' if trained is None else 'name a method such as color'}"
        )
    if len(method.members) > 1 and method.join is None:
        return replace(method, join=parse(JOINS, "concat"))
    if method.join is not None and method.join.entry.name not in BLIND_JOINS:
        raise BenchError(
            f"method {str(method)!r}: labels spread among single vectors that know no label; join by "
            f"+{' or +'.join(BLIND_JOINS)}"
        )
    return method

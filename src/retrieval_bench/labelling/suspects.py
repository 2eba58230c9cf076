"""Labels that are likely to be wrong: what arrives from all others says something else, and says it clearly."""

from __future__ import annotations

import numpy as np

from retrieval_bench.labelling.spreading import Spread

LEAD = 10.0
"""So many times as much must arrive of another label as of the one that is given. Measured with planted errors: see
docs/labelling.md."""
LEAST_SHARE = 0.1
"""Of all that arrives, the part that the other label must have: below it nobody has said much."""


def suspects(known: np.ndarray, arrived: Spread) -> np.ndarray:
    """Rows whose label is likely to be wrong, the likeliest first.

    Of a label that only one image has nothing can arrive there, so it is never among them. What `data_audit` finds,
    equal pictures under two labels, is among these where most of the copies agree.

    Args:
        known: (n,) int64, the label of each image, -1 where it is not known.
        arrived: what `spread` says of these.

    Returns:
        (s,) int64 rows.
    """
    counts = np.bincount(known[known >= 0], minlength=1)
    asked = (known >= 0) & (counts[np.maximum(known, 0)] > 1)
    other = (arrived.labels[:, 0] != known) & (arrived.labels[:, 0] >= 0)
    lead = arrived.amounts[:, 0] / np.maximum(arrived.given, 1e-12)
    share = arrived.amounts[:, 0] / np.maximum(arrived.total, 1e-12)
    rows = np.flatnonzero(asked & other & (lead >= LEAD) & (share >= LEAST_SHARE))
    return rows[np.argsort(-lead[rows], kind="stable")]

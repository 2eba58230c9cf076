"""How far large photos may be decoded small: as far as every method of the run shrinks them anyway."""

from __future__ import annotations

import logging
from dataclasses import replace

from retrieval_bench.experiment.prepare import Plan
from retrieval_bench.methods.pipeline import Pipeline

log = logging.getLogger("retrieval_bench")


def reduced(plan: Plan) -> tuple[Plan, tuple[str, ...]]:
    """The plan, with photos decoded for the method that wants most of them where that is asked for; notices of it.

    Methods are built for this, networks too. One that cannot be built asks for nothing: its row will say why.
    """
    if plan.decode == "full":
        return plan, ()
    if plan.perturb:
        return plan, ("--decode reduced: images are decoded whole, since --perturb changes every pixel of a query",)
    side = 1
    for method in plan.methods:
        try:
            parts = Pipeline(method, plan.setup, plan.backend).parts
        except Exception as error:
            log.debug("%s cannot be built: %s", method, error)
            continue
        for part in parts:
            wanted = getattr(part.extractor, "wanted", None)
            if wanted is None:
                return plan, (f"--decode reduced: images are decoded whole, since {part.name} looks at every pixel",)
            side = max(side, wanted)
    if side == 1:
        return plan, ("--decode reduced: no method of this run looks at pixels",)
    notice = (
        f"--decode reduced: JPEG files of {4 * side:,} pixels and more along the shorter side are decoded at 1/2, 1/4 "
        f"or 1/8 of it, with {2 * side:,} or more left"
    )
    return replace(plan, decoding=replace(plan.decoding, wanted=side)), (notice,)

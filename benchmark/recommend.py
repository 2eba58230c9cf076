"""`recommend`: which method of the records to take, within limits, and what the data cannot decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import GATE_FAILED, OK, app, command, say
from benchmark.options import Costs, MaxBytes, MaxFit, MaxP95, OfImages, Plugins, Prefer


@command(app, "recommend")
def recommend_command(
    records: Annotated[
        list[Path],
        typer.Argument(metavar="RECORD...", help="Each is a run.json, or the folder that holds it; of the same data."),
    ],
    max_p95_ms: MaxP95 = None,
    max_bytes: MaxBytes = None,
    max_fit_s: MaxFit = None,
    images: OfImages = None,
    prefer: Prefer = None,
    costs: Costs = None,
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the advice as JSON.")] = False,
) -> int:
    """Say which method to take within limits, what is as good, and what the data cannot decide.

    Exit code 0: something fits; 1: nothing fits, and the nearest miss is shown.
    """
    from retrieval_bench.choosing import advice_text
    from retrieval_bench.choosing.cost_file import measured_search
    from retrieval_bench.choosing.recommend import PREFERRED, ChoiceQuestion, recommend
    from retrieval_bench.report.evidence import gather

    question = ChoiceQuestion(max_p95_ms, max_bytes, max_fit_s, images, prefer or PREFERRED)
    measured = None if costs is None else measured_search(costs)
    found = [gather(path, None, False) for path in dict.fromkeys(records)]
    advice = recommend(found, question, measured)
    say(json.dumps(advice_text.as_data(advice), indent=1, allow_nan=False) if as_json else advice_text.text(advice))
    return OK if advice.fitting else GATE_FAILED

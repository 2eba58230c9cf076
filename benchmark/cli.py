"""`python -m benchmark` and `retrieval-bench`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from benchmark.app import app
from benchmark.streams import open_what_is_closed
from retrieval_bench.system.passive_waiting import wait_passively

# Each registers its commands, in the order in which --help lists them.
# isort: off
import benchmark.run
import benchmark.listing
import benchmark.check
import benchmark.new
import benchmark.show
import benchmark.report
import benchmark.convert
import benchmark.cost
import benchmark.recommend
import benchmark.leaderboard
import benchmark.diff
import benchmark.history
import benchmark.track
import benchmark.repeat
import benchmark.race
import benchmark.doctor
import benchmark.audit
import benchmark.dedupe
import benchmark.explain
import benchmark.export
import benchmark.index
import benchmark.label
import benchmark.slices
import benchmark.serve
import benchmark.sweep
import benchmark.stores
import benchmark.train
import benchmark.tune
import benchmark.data  # noqa: F401
# isort: on


def main() -> None:
    """The command line, in a process of its own."""
    open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows another one
    wait_passively()
    app(prog_name="retrieval-bench" if Path(sys.argv[0]).name == "retrieval-bench" else "python -m benchmark")


if __name__ == "__main__":
    main()

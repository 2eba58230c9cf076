"""The console script, and `python -m benchmark`. What takes long to load waits for the worker process to be started."""

from __future__ import annotations

from benchmark.early_worker import started_early
from benchmark.library_noise import keep_off_the_screen
from benchmark.streams import open_what_is_closed
from retrieval_bench.system.passive_waiting import wait_passively


def main() -> None:
    """Run the command line."""
    open_what_is_closed()
    keep_off_the_screen()
    wait_passively()
    with started_early():
        from benchmark import cli

        cli.main()


if __name__ == "__main__":  # worker processes import this file, too
    main()

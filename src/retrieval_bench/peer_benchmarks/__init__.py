"""Our engine and networks against their peers, on one machine in one run: `make kernel`, `python -m benchmark.network`.

The latency of methods in a run is measured in `experiment`.
"""

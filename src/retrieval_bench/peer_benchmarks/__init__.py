"""Our engine and networks against their peers, index and service against the bare method, on one machine in one run.

The latency of methods in a run is measured in `experiment`.
"""

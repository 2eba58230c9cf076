"""The exact top-k engine and its backends, found through the BACKENDS registry.

Importing this package registers them and loads no compiled code. Judging what was found belongs in `evaluation`.
"""

from retrieval_bench.search import gpu, index, reference

__all__ = ["gpu", "index", "reference"]

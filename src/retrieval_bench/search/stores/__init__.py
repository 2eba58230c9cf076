"""Real vector stores as search backends: PostgreSQL with pgvector, and LanceDB, started and ended by this program.

Importing this package registers them and loads neither. An index in this program's own memory belongs in `search`; how
rankings are judged, in `evaluation`.
"""

from retrieval_bench.search.stores import lance, pgvector

__all__ = ["lance", "pgvector"]

"""What a service tells its clients, as typed data, and the client that asks it; nothing of the extra `serve` is needed.

How an answer is found does not belong here (`answering/`).
"""

from retrieval_bench.serving.client.search_client import SearchClient, ServiceRefused

__all__ = ["SearchClient", "ServiceRefused"]

"""What the service tells about itself, as text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from retrieval_bench.serving.answering.open_indexes import OpenIndex
from retrieval_bench.serving.client.answers import Answer

if TYPE_CHECKING:
    from retrieval_bench.serving.answering.service import SearchService

NAMESPACE = "retrieval_bench"
CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Telemetry:
    """Counts of one service; another one in the same process has its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(name, about, labels, namespace=NAMESPACE, registry=registry)

        def seconds(name: str, about: str, *labels: str) -> Histogram:
            return Histogram(name, about, labels, namespace=NAMESPACE, registry=registry, buckets=_SECONDS)

        self._requests = counter("requests", "Requests answered.", "route", "method", "status")
        self._request_s = seconds("request_seconds", "A request, to its last byte.", "route")
        self._phase_s = seconds("phase_seconds", "A phase of a search.", "column", "phase")
        self.refused = counter("refused", "Requests that were not served.", "status")
        self.batch = Histogram(
            "batch_pictures",
            "Pictures described together.",
            namespace=NAMESPACE,
            registry=registry,
            buckets=(1, 2, 4, 8, 16),
        )

    def watch(self, service: SearchService) -> None:
        """Tell of the state of a service, each time that somebody asks."""
        process = psutil.Process()
        told: tuple[tuple[str, str, Callable[[], float]], ...] = (
            ("requests_under_way", "Requests that are being served.", lambda: service.under_way),
            ("queue_waiting", "Pictures that wait for a method.", lambda: service.queue.waiting),
            ("queue_bound", "Pictures that may wait.", lambda: service.queue.bound),
            ("decoders_replaced", "Children that crashed, or were ended.", lambda: service.pool.replaced),
            ("memory_bytes", "Resident memory of this process.", lambda: process.memory_info().rss),
            ("recent_pictures", "Pictures kept in memory for a while.", lambda: len(service.recent)),
        )
        for name, about, value in told:
            Gauge(name, about, namespace=NAMESPACE, registry=self.registry).set_function(value)
        items = Gauge("items", "Live items of an index.", ("index",), namespace=NAMESPACE, registry=self.registry)
        for index in service.indexes:
            items.labels(index.name).set_function(partial(_live, index))

    def answered(self, answer: Answer) -> None:
        """Count the phases of a search."""
        if "decode" in answer.milliseconds:
            self._phase_s.labels("", "decode").observe(answer.milliseconds["decode"] / 1e3)
        for column in answer.columns:
            for phase, milliseconds in column.milliseconds.items():
                self._phase_s.labels(column.key, phase).observe(milliseconds / 1e3)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request by its route, never by its path: a client could make up any number of paths."""
        self._requests.labels(route, method, str(status)).inc()
        self._request_s.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)


def _live(index: OpenIndex) -> float:
    return len(index.stored.snapshot())

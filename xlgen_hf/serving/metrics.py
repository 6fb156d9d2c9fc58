"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The numbers of one server, and those of its process (memory, CPU)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter("xlgen_requests", "Answered requests.", ["path", "status"], registry=self.registry)
        self._seconds = Histogram("xlgen_request_seconds", "Time of a request.", ["path"], registry=self.registry)
        self._batches = Histogram(
            "xlgen_batch_texts", "Texts of a batch.", ["model"], buckets=_BATCHES, registry=self.registry
        )
        self._waiting = Gauge("xlgen_waiting_texts", "Texts that wait.", ["model"], registry=self.registry)
        self._reloads = Counter("xlgen_reloads", "Reloads of a model.", ["model", "result"], registry=self.registry)

    def add_model(self, model: str, waiting: Callable[[], int]) -> Callable[[int], None]:
        """Count what concerns a model.

        Args:
            model: its id.
            waiting: how many texts wait for it.

        Returns:
            What is to be called after each batch with its number of texts.
        """
        self._waiting.labels(model).set_function(waiting)
        observe: Callable[[int], None] = self._batches.labels(model).observe
        return observe

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request; `path` is that of its route, without what clients put into it."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def reloaded(self, model: str, *, failed: bool) -> None:
        """Count a reload."""
        self._reloads.labels(model, "failed" if failed else "done").inc()

    def text(self) -> bytes:
        """All numbers in the text format of Prometheus."""
        return generate_latest(self.registry)

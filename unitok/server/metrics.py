"""GET /metrics: counts and times for Prometheus, https://prometheus.io/docs/concepts/metric_types.

The engines' counts are read when somebody asks. What belongs to one request is counted at its end.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from unitok import __version__
from unitok.results import DrawResult, Result
from unitok.server.admission import Admission
from unitok.server.gate import Ended
from unitok.server.served import ServedModels
from unitok.stats import Stats

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
NO_ROUTE = "none"  # paths that do not exist, of which there are endlessly many

# Counts of an engine that only grow: name, help, and the field of `Stats`.
COUNTS = (
    ("unitok_forwards", "Forwards of the model.", "forwards"),
    ("unitok_preemptions", "Sequences whose blocks others needed.", "preemptions"),
    ("unitok_prompt_tokens", "Tokens of prompts.", "prompt_tokens"),
    ("unitok_cached_tokens", "Tokens of prompts that were found computed.", "cached_tokens"),
    ("unitok_generated_tokens", "Generated tokens, of text and of pictures.", "generated_tokens"),
    ("unitok_drafted_tokens", "Guessed tokens of pictures that ran.", "drafted_tokens"),
    ("unitok_accepted_tokens", "Guessed tokens that were right.", "accepted_tokens"),
)
# What an engine holds now.
LEVELS = (
    ("unitok_running_requests", "Requests that run.", "running_requests"),
    ("unitok_waiting_requests", "Requests that wait for their turn.", "waiting_requests"),
    ("unitok_tokens_per_second", "Generated tokens per second.", "tokens_per_second"),
    ("unitok_kv_cache_bytes", "Bytes of the K/V pool.", "memory"),
)
BLOCKS = (("used", "used_blocks"), ("free", "free_blocks"), ("cached", "cached_blocks"))


class Metrics:
    """All numbers of a server.

    Attributes:
        registry: Holds them for Prometheus.
    """

    def __init__(self, models: ServedModels, admission: Admission) -> None:
        """Count from 0 on.

        Args:
            models: Whose engines are read.
            admission: What is on its way.
        """
        self.registry = CollectorRegistry()
        self.registry.register(_Readings(models, admission))
        self._requests = self._counter("requests", "Requests that ended.", "route", "status")
        self._aborted = self._counter("aborted", "Requests whose client went away.", "route")
        self._seconds = self._histogram("request_seconds", "From a request to its end.", "route")
        self._tokens = self._counter("tokens", "Tokens of results.", "model", "kind")
        self._pictures = self._counter("pictures", "Pictures of results.", "model")
        self._first = self._histogram(
            "time_to_first_token_seconds", "From a streamed request to its first token.", "model"
        )
        self._picture_seconds = self._histogram(
            "picture_seconds", "From a live request to its picture.", "model"
        )

    def ended(self, request: Ended) -> None:
        """Count a request that has ended."""
        route = request.route or NO_ROUTE
        self._requests.labels(route, str(request.status or 0)).inc()
        self._seconds.labels(route).observe(request.seconds)
        if request.passage.log.get("aborted"):
            self._aborted.labels(route).inc()

    def first_token(self, model: str, seconds: float) -> None:
        """Note when the first token of a streamed request came."""
        self._first.labels(model).observe(seconds)

    def result(self, model: str, result: Result, live: bool = True) -> None:
        """Count the tokens and the pictures of a result, and note how long pictures took.

        Args:
            model: Its name.
            result: The result.
            live: Whether somebody waits for it. How long lines of batches waited is not noted.
        """
        drawn = isinstance(result, DrawResult)
        self._tokens.labels(model, "image" if drawn else "text").inc(result.completion_tokens)
        if drawn and result.images:
            self._pictures.labels(model).inc(len(result.images))
            for _ in result.images if live else ():
                self._picture_seconds.labels(model).observe(result.seconds)

    def text(self) -> bytes:
        """All numbers, as Prometheus reads them."""
        return generate_latest(self.registry)

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        return Counter(f"unitok_{name}", told, labels, registry=self.registry)

    def _histogram(self, name: str, told: str, *labels: str) -> Histogram:
        return Histogram(f"unitok_{name}", told, labels, buckets=SECONDS, registry=self.registry)


class _Readings(Collector):
    """What is read when somebody asks: the engines' counts, and what is on its way."""

    def __init__(self, models: ServedModels, admission: Admission) -> None:
        self.models, self.admission = models, admission

    def collect(self) -> Iterable[Metric]:
        """All readings."""
        stats = {model.name: model.stats() for model in self.models.models}
        for name, told, field in COUNTS:
            yield _filled(CounterMetricFamily(name, told, labels=["model"]), stats, field)
        for name, told, field in LEVELS:
            yield _filled(GaugeMetricFamily(name, told, labels=["model"]), stats, field)
        blocks = GaugeMetricFamily(
            "unitok_blocks", "Blocks of the K/V pool.", labels=["model", "state"]
        )
        for name, one in stats.items():
            for state, field in BLOCKS:
                blocks.add_metric([name, state], getattr(one, field))
        yield blocks
        admission = self.admission
        yield GaugeMetricFamily(
            "unitok_admitted", "Answers and pictures on their way.", admission.admitted
        )
        yield GaugeMetricFamily(
            "unitok_admission_limit",
            "The most answers and pictures on their way.",
            admission.settings.max_requests,
        )
        yield CounterMetricFamily(
            "unitok_rejected", "Requests that found no room.", admission.rejected
        )
        version = GaugeMetricFamily("unitok_info", "The version.", labels=["version"])
        version.add_metric([__version__], 1)
        yield version


def _filled(family: Metric, stats: dict[str, Stats], field: str) -> Metric:
    for name, one in stats.items():
        family.add_metric([name], getattr(one, field))  # type: ignore[attr-defined]
    return family

"""What the server counts, in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from training.engine.kv_budget import KVBudget
from training.serve.scheduler import Scheduler

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """A registry of its own, so that several servers of one process do not mix."""

    def __init__(self, scheduler: Scheduler, memory: KVBudget) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tutelage_requests", "Requests by path and status", ["path", "status"], registry=self.registry
        )
        self.prompt_tokens = Counter(
            "tutelage_prompt_tokens", "Tokens of prompts read", ["model"], registry=self.registry
        )
        self.generated_tokens = Counter(
            "tutelage_generated_tokens", "Tokens of replies that ended", ["model"], registry=self.registry
        )
        self.first_token = Histogram(
            "tutelage_time_to_first_token_seconds", "From request to first text, of streamed replies",
            registry=self.registry, buckets=SECONDS,
        )  # fmt: skip
        self.reply = Histogram(
            "tutelage_reply_seconds", "From request to the end of its replies", registry=self.registry, buckets=SECONDS
        )
        for name, text, read in (
            ("tutelage_requests_running", "Replies being generated", lambda: scheduler.running),
            ("tutelage_requests_waiting", "Replies waiting for a slot", lambda: scheduler.waiting),
            ("tutelage_kv_cache_bytes", "Memory that keys and values take, of all models", lambda: memory.used),
            ("tutelage_kv_cache_limit_bytes", "Memory that keys and values may take", lambda: memory.limit),
            ("tutelage_replies_preempted", "Times that a reply gave its memory to others", lambda: memory.preemptions),
            ("tutelage_tokens_per_second", "Tokens generated a second, over ten seconds", scheduler.rate),
        ):
            Gauge(name, text, registry=self.registry).set_function(read)

    def text(self) -> bytes:
        return generate_latest(self.registry)

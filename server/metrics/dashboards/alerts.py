"""Prometheus's alert rules: what a person must know of, and what to do about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import engine.metrics.catalogue as engine
from server.metrics import catalogue as server
from server.metrics.dashboards.query import Scope

JOB = "tokenloom"
SHORT = Scope("2m", by=("instance", "model_name"))
LONG = Scope("5m", by=("instance", "model_name"))
NO_PROBES = '!~"/health.*|/metrics"'
PROCESS_MEMORY = engine.MEMORY.exposed


@dataclass(frozen=True, slots=True)
class Objectives:
    """What a deployment promises."""

    first_token_seconds: float = 2.0  # p99
    between_tokens_seconds: float = 0.3  # p99
    answer_seconds: float = 2.0  # p99, of an encoder's input
    error_ratio: float = 0.05  # of HTTP responses


@dataclass(frozen=True, slots=True)
class Alert:
    """Fires once `expression` has held for so long."""

    name: str
    expression: str
    held: str
    severity: str  # critical: somebody is not served now; warning: it will come to that
    summary: str
    action: str

    def render(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.held,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "description": self.action},
        }


def rules(objectives: Objectives) -> Mapping[str, Any]:
    """The rule file's content."""
    alerts = [*_availability(), *_errors(objectives), *_latency(objectives), *_resources()]
    return {"groups": [{"name": "tokenloom", "rules": [alert.render() for alert in alerts]}]}


def _availability() -> list[Alert]:
    pending = f"{SHORT.sum(engine.RUNNING)} + {SHORT.sum(engine.WAITING)} > 0"
    return [
        Alert(
            "TokenloomDown",
            f'up{{job="{JOB}"}} == 0',
            "1m",
            "critical",
            "{{ $labels.instance }} does not answer",
            "See whether its processes live and what the last lines of its log say.",
        ),
        Alert(
            "TokenloomNoProgress",
            f"({pending}) and ({SHORT.rate(engine.STEP_SECONDS)} == 0)",
            "1m",
            "critical",
            "{{ $labels.instance }} has requests and does no step",
            "/health fails as well; ending the engine's process makes the server start it again.",
        ),
        Alert(
            "TokenloomRestarts",
            f"sum by (instance, model_name) (increase({server.RESTARTS.exposed}[15m])) > 0",
            "0m",
            "warning",
            "the engine of {{ $labels.instance }} died and was started again",
            "The log says which signal or error ended it.",
        ),
    ]


def _errors(objectives: Objectives) -> list[Alert]:
    failed = LONG.rate(server.RESPONSES, status='=~"5.."', route=NO_PROBES)
    every = LONG.rate(server.RESPONSES, route=NO_PROBES)
    broken = LONG.rate(server.SUCCESS, finished_reason='="error"')
    ended = LONG.rate(server.SUCCESS)
    return [
        Alert(
            "TokenloomErrors",
            f"{failed} / {every} > {objectives.error_ratio:g}",
            "5m",
            "critical",
            "{{ $value | humanizePercentage }} of the responses of {{ $labels.instance }} are errors",
            "503 without a dead engine means that it is loading or draining; 500 is a fault, and logged.",
        ),
        Alert(
            "TokenloomFailedRequests",
            f"{broken} / {ended} > {objectives.error_ratio:g}",
            "5m",
            "critical",
            "{{ $value | humanizePercentage }} of the requests of {{ $labels.instance }} failed in the engine",
            "Their streams ended with an error event; the engine's log names the cause.",
        ),
    ]


def _latency(objectives: Objectives) -> list[Alert]:
    promised = (
        (
            "TokenloomFirstTokenSlow",
            LONG.quantile(0.99, server.FIRST_TOKEN),
            objectives.first_token_seconds,
            "the first token",
        ),
        (
            "TokenloomTokensSlow",
            LONG.quantile(0.99, server.BETWEEN_TOKENS),
            objectives.between_tokens_seconds,
            "a next token",
        ),
        (
            "TokenloomAnswersSlow",
            # An encoder is what has no KV cache; a decoder's answer takes as long as it is.
            f"({LONG.quantile(0.99, server.WHOLE)} unless {LONG.sum(engine.CACHE_LAYOUT)})",
            objectives.answer_seconds,
            "an answer",
        ),
    )
    return [
        Alert(
            name,
            f"{slowest} > {limit:g}",
            "10m",
            "warning",
            f"{what} of {{{{ $labels.instance }}}} takes {{{{ $value | humanizeDuration }}}} (p99)",
            f"The objective is {limit:g} s. Lower max_queued_requests or max_batch_tokens, or add servers.",
        )
        for name, slowest, limit, what in promised
    ]


def _resources() -> list[Alert]:
    refused = LONG.rate(server.REJECTIONS, cause='=~"queue_.*"')
    then, grown = f"min_over_time({PROCESS_MEMORY}[30m] offset 2h)", f"min_over_time({PROCESS_MEMORY}[30m])"
    return [
        Alert(
            "TokenloomQueueSaturated",
            f"{refused} > 0",
            "2m",
            "warning",
            "{{ $labels.instance }} turns requests away: its queue is full",
            "Clients get a 429 that says when to come back. Add servers if it goes on.",
        ),
        Alert(
            "TokenloomCacheExhausted",
            f"({LONG.max(engine.KV_USAGE)} > 0.95) and ({LONG.rate(engine.PREEMPTIONS)} > 0)",
            "5m",
            "warning",
            "the KV cache of {{ $labels.instance }} is full and requests are computed again",
            "Raise kv_memory, or lower max_requests or max_model_len.",
        ),
        Alert(
            "TokenloomMemoryGrows",
            f"{grown} - {then} > 64 * 1024 * 1024 and {grown} / {then} > 1.1",
            "1h",
            "warning",
            "{{ $labels.process }} of {{ $labels.instance }} has grown by {{ $value | humanize1024 }}B in 2 hours",
            "Memory is flat once a server has seen its load; a slope is a fault worth reporting.",
        ),
    ]

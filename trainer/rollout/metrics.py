"""What the gateway counts, for Prometheus. Labels are reasons and sides: no session, no path, no content."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)
_REWARD = (-0.8, -0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


class Metrics:
    """The counters of one gateway, since its start; what outlives it is in the rollout's database."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "claude_gateway_requests",
            "Messages requests, by the session's side (none: without a session), who answered, and why not its side",
            ("pinned", "answered_by", "reason"),
            registry=self.registry,
        )
        self.relayed = Counter(
            "claude_gateway_relayed", "Other requests, which are the teacher's", registry=self.registry
        )
        self.refused = Counter(
            "claude_gateway_refused", "Requests that the gateway itself refused", ("status",), registry=self.registry
        )
        self.endings = Counter(
            "claude_gateway_endings",
            "How replies ended: complete, cut (in the middle), unreachable, late_error (after a ping), client_left",
            ("answered_by", "ending"),
            registry=self.registry,
        )
        self.first_byte = Histogram(
            "claude_gateway_first_byte_seconds",
            "From the whole request to the first byte of the reply's head",
            ("answered_by",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge("claude_gateway_in_flight", "Requests that are being answered", registry=self.registry)
        self.tokens = Counter(
            "claude_gateway_student_tokens", "Tokens of the student's replies", ("kind",), registry=self.registry
        )
        self.breaker = Gauge(
            "claude_gateway_breaker", "Circuit breaker: 0 closed, 1 half open, 2 open", registry=self.registry
        )
        self.weight = Gauge(
            "claude_gateway_stage_percent", "New sessions that go to the student", registry=self.registry
        )
        self.killed = Gauge("claude_gateway_kill_switch", "1 while the kill switch is on", registry=self.registry)
        self.shadowed = Counter(
            "claude_gateway_shadow", "Turns in the shadow: scored, dropped, or why not", ("outcome",),
            registry=self.registry,
        )  # fmt: skip
        self.shadow_reward = Histogram(
            "claude_gateway_shadow_reward", "Reward of the student's turns", buckets=_REWARD, registry=self.registry
        )

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)

"""What the service counts, for Prometheus: https://prometheus.io/docs/instrumenting/exposition_formats."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tasks.train_controller.act.answers import Answer

DECISION_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.1)
ANSWER_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
OTHER = "other"  # endpoints that are none: a label for each would grow without end

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Metrics:
    """Counters of one service, in a registry of its own. `waiting`: how long the queue is now."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, waiting: Callable[[], int]) -> None:
        of = self._registry = CollectorRegistry()
        self._requests = Counter(
            "espalier_requests", "Requests by endpoint and status", ["endpoint", "status"], registry=of
        )
        self._tokens = Counter(
            "espalier_tokens", "Tokens of prompts read and of answers written", ["kind"], registry=of
        )
        self._answers = Counter("espalier_answers", "Answers by the action that wrote them", ["action"], registry=of)
        self._decision = Histogram("espalier_decision_seconds", "Of a policy's choice", buckets=DECISION_S, registry=of)
        self._answer = Histogram("espalier_answer_seconds", "From question to answer", buckets=ANSWER_S, registry=of)
        Gauge("espalier_waiting", "Questions in the queue", registry=of).set_function(waiting)

    def answered(self, answer: Answer, seconds: float) -> None:
        """`seconds`: since the question was asked, its waiting included."""
        self._tokens.labels("prompt").inc(answer.prompt_tokens)
        self._tokens.labels("answer").inc(answer.tokens)
        self._answers.labels(str(answer.decision.action)).inc()
        if answer.decision.scores:  # else no policy was asked
            self._decision.observe(answer.decision.decision_ms / 1000)
        self._answer.observe(seconds)

    def requested(self, endpoint: str, status: int) -> None:
        self._requests.labels(endpoint, str(status)).inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)


class Counted:
    """An ASGI application of which every request to `endpoints` is counted, whatever comes of it."""

    def __init__(self, app: Callable[..., Awaitable[None]], metrics: Metrics, endpoints: frozenset[str]) -> None:
        self.app, self.metrics, self.endpoints = app, metrics, endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500  # where the application raises before it says another

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            self.metrics.requested(scope["path"] if scope["path"] in self.endpoints else OTHER, status)

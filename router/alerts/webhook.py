"""Posts an alert to the configured URL, through the configured proxy. Redirects are not followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from router.policy.network import Network
from router.settings import Settings
from router.upstream.calls import Call, Origin
from router.upstream.standalone_call import NoResponseError, send

RETRY_SECONDS = (1.0, 5.0, 25.0)  # before the second, third and fourth attempt
_RETRIED_STATUSES = (408, 425, 429)  # and all from 500 on
_JSON = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Webhook:
    """The webhook. Its address is a secret: it appears in no `repr`, message or log."""

    origin: Origin = field(repr=False)
    target: bytes = field(repr=False)  # path and query
    network: Network = field(repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Webhook | None:
        """The webhook of the settings, or None."""
        if settings.alert_webhook is None:
            return None
        parts = urlsplit(settings.alert_webhook.get_secret_value())
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(Origin.parse(f"{parts.scheme}://{parts.netloc}"), target.encode(), settings.network)

    def deliver(self, body: bytes, wait: Callable[[float], bool]) -> str:
        """Post, with retries for temporary failures. Returns the reason of a failure, or an empty string.

        `wait` waits for a number of seconds and returns whether to give up.
        """
        problem, again = self.post(body)
        for seconds in RETRY_SECONDS:
            if not again or wait(seconds):
                break
            problem, again = self.post(body)
        return problem

    def post(self, body: bytes) -> tuple[str, bool]:
        """Post once. Returns the reason of a failure, or an empty string, and whether a retry may help."""
        try:
            response = send(self.origin, Call(b"POST", self.target, [_JSON], (body,)), self.network)
        except NoResponseError as error:
            return str(error), True
        if 200 <= response.status < 300:
            return "", False
        return f"it answered {response.status}", response.status >= 500 or response.status in _RETRIED_STATUSES

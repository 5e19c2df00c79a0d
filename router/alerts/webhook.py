"""Posts an alert to the URL that the owner set: through the proxy like everything, following no redirect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from router.policy.network import Network
from router.settings import Settings
from router.upstream.calls import Call, Origin
from router.upstream.standalone_call import NoResponseError, send

RETRY_SECONDS = (1.0, 5.0, 25.0)  # before the second, third and fourth attempt
_TRY_AGAIN = (408, 425, 429)  # and the statuses from 500 on
_JSON = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where alerts go. The address is a secret: it is in no `repr`, message or log."""

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
        """Post, and post again where that may help; why it was not taken, or nothing.

        `wait` waits for some seconds, and says whether to give up.
        """
        problem, again = self.post(body)
        for seconds in RETRY_SECONDS:
            if not again or wait(seconds):
                break
            problem, again = self.post(body)
        return problem

    def post(self, body: bytes) -> tuple[str, bool]:
        """Post once. Why it was not taken, or nothing; and whether another attempt may help."""
        try:
            heard = send(self.origin, Call(b"POST", self.target, [_JSON], (body,)), self.network)
        except NoResponseError as error:
            return str(error), True
        if 200 <= heard.status < 300:
            return "", False
        return f"it answered {heard.status}", heard.status >= 500 or heard.status in _TRY_AGAIN

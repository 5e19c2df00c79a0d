"""Raises alerts. Any part of the router may call `Alerts.alert`, in any process.

A background thread delivers them, so that no request waits for a disk or a webhook.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Mapping

from router.alerts.alert import Alert, Field
from router.alerts.record import FAILED, KEEP_SECONDS, SENT, SHOWN_SECONDS, UNSENT, AlertRecord, Raised
from router.alerts.webhook import Webhook
from router.settings import Settings, SettingsError

log = logging.getLogger("router")
MOST_WAITING = 100
TIDY_EVERY_SECONDS = 3600.0
CLOSE_SECONDS = 3.0  # for queued alerts when the process ends


class Alerts:
    """The alerts of one process."""

    def __init__(self, settings: Settings) -> None:
        self._record = AlertRecord(settings.home)
        self._webhook = Webhook.of(settings)
        self._waiting: queue.Queue[Alert | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closing = threading.Event()
        self._over = False

    def alert(
        self,
        kind: str,
        subject: str,
        text: str,
        fields: Mapping[str, Field] | None = None,
        *,
        occasion: str = "",
        until_unix: float | None = None,
    ) -> None:
        """Raise an alert and return at once. `text` is a sentence for readers, `fields` is the same for programs.

        An alert with the same `kind`, `subject` and `occasion` is raised once until `until_unix` (None: 70 days),
        across restarts and processes.
        """
        now = time.time()
        made = Alert(
            kind=kind,
            subject=subject,
            text=text,
            fields=dict(fields or {}),
            occasion=occasion,
            unix=now,
            keep_until_unix=now + KEEP_SECONDS if until_unix is None else max(until_unix, now + SHOWN_SECONDS),
        )
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait(made)
        except queue.Full:
            log.error("alert: %s (only logged: %d other alerts are queued)", text, MOST_WAITING)

    def recent(self) -> list[Raised]:
        """The alerts of the last day from all processes with this home folder, oldest first."""
        return self._record.recent(time.time())

    def all(self) -> list[Raised]:
        """All stored alerts, oldest first."""
        return self._record.all()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Deliver queued alerts, one attempt each, for up to this many seconds."""
        self._closing.set()
        if self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._waiting.put(None, timeout=seconds)
                self._thread.join(seconds)
            self._over = True

    def _work(self) -> None:
        tidied = 0.0
        while (alert := self._waiting.get()) is not None and not self._over:
            try:
                if alert.unix - tidied > TIDY_EVERY_SECONDS:
                    self._record.tidy(alert.unix)
                    tidied = alert.unix
                self._raise(alert)
            except Exception:  # a programming error must not stop the next alert
                log.exception("alert %s was not raised", alert.kind)

    def _raise(self, alert: Alert) -> None:
        try:
            if not self._record.is_first(alert):
                return
        except OSError as error:  # a full disk must not silence alerts
            log.error("alerts cannot be stored, so they may be repeated: %s", error.strerror)
        log.warning("alert: %s", alert.text)
        if self._webhook is None:
            self._record.settle(alert, UNSENT)
            return
        problem = self._webhook.deliver(alert.body(), self._closing.wait)
        if problem:
            log.error("the webhook rejected the alert about %s: %s", alert.subject, problem)
        self._record.settle(alert, FAILED if problem else SENT, problem)


def as_text(raised: Raised) -> str:
    """An alert for the dashboard."""
    return raised.alert.text + (f" (the webhook rejected this: {raised.problem})" if raised.problem else "")


def send_test(settings: Settings) -> str:
    """Post a test alert to the webhook, once. Returns the reason of a failure, or an empty string.

    Raises:
        SettingsError: no webhook is set.
    """
    webhook = Webhook.of(settings)
    if webhook is None:
        raise SettingsError("no webhook is set: set ROUTER_ALERT_WEBHOOK to its URL")
    text = "this is a test alert; nothing is wrong"
    now = time.time()
    return webhook.post(Alert(kind="test", subject="router", text=text, unix=now, keep_until_unix=now).body())[0]

"""Stores raised alerts in ROUTER_HOME/alerts, one file each, for all processes and across restarts.

Exactly one process creates the file of an alert, and that process delivers it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import msgspec

from router.alerts.alert import Alert

FOLDER = "alerts"
PENDING, SENT, FAILED, UNSENT = (
    "pending",
    "sent",
    "failed",
    "not_sent",
)  # the state of a delivery; UNSENT: no webhook is set
KEEP_SECONDS = 70 * 86_400.0  # the default
SHOWN_SECONDS = 86_400.0


class Raised(msgspec.Struct):
    """A stored alert."""

    alert: Alert
    delivery: str = PENDING
    problem: str = ""  # why the webhook rejected it


_decoder = msgspec.json.Decoder(Raised)


class AlertRecord:
    """The alerts of one home folder."""

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER

    def is_first(self, alert: Alert) -> bool:
        """Store the alert, and return whether it was not stored before by any process.

        Raises:
            OSError: the file cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            fd = os.open(self._path(alert), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return False
        with open(fd, "wb") as file:  # noqa: PTH123  of a descriptor
            file.write(msgspec.json.encode(Raised(alert)))
        return True

    def settle(self, alert: Alert, delivery: str, problem: str = "") -> None:
        """Store the result of a delivery by replacing the file atomically. Ignored if the disk is full."""
        partial = self._folder / f".{alert.id}-{secrets.token_hex(4)}"
        with contextlib.suppress(OSError):
            partial.write_bytes(msgspec.json.encode(Raised(alert, delivery, problem)))
            partial.replace(self._path(alert))

    def all(self) -> list[Raised]:
        """Every stored alert, oldest first."""
        found = []
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(OSError, msgspec.DecodeError):  # being written, or of another version
                found.append(_decoder.decode(path.read_bytes()))
        return sorted(found, key=lambda raised: raised.alert.unix)

    def recent(self, now_unix: float) -> list[Raised]:
        """The alerts of the last day, oldest first."""
        return [raised for raised in self.all() if raised.alert.unix > now_unix - SHOWN_SECONDS]

    def tidy(self, now_unix: float) -> None:
        """Remove expired alerts and files that are no alerts."""
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(OSError):
                try:
                    until = _decoder.decode(path.read_bytes()).alert.keep_until_unix
                except msgspec.DecodeError:
                    until = path.stat().st_mtime + KEEP_SECONDS
                if until < now_unix:
                    path.unlink()

    def _path(self, alert: Alert) -> Path:
        return self._folder / f"{alert.id}.json"

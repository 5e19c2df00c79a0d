"""One alert, and its JSON for a webhook."""

from __future__ import annotations

import datetime as dt
import hashlib

import msgspec

Field = str | int | float | bool | None


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """An event that the operator should know at once. It contains no secret and no request content."""

    kind: str  # such as budget
    subject: str  # what it concerns, such as the name of a key
    text: str  # one sentence for readers
    fields: dict[str, Field] = {}  # the same for programs
    occasion: str = ""  # an alert with the same kind, subject and occasion is raised once
    unix: float
    keep_until_unix: float  # a repetition before this time is not raised again

    @property
    def id(self) -> str:
        """Identifies repetitions of the same alert: 32 hexadecimal digits."""
        return hashlib.sha256(msgspec.json.encode((self.kind, self.subject, self.occasion))).hexdigest()[:32]

    def body(self) -> bytes:
        """The JSON to post. Slack, Mattermost and others show `text` and ignore the other fields."""
        at = dt.datetime.fromtimestamp(int(self.unix), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return msgspec.json.encode(
            {
                "text": f"Router: {self.text}",
                "kind": self.kind,
                "subject": self.subject,
                "id": self.id,
                "at": at,
                "fields": self.fields,
            }
        )

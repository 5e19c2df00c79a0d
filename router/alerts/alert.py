"""One alert, and the form in which a webhook gets it."""

from __future__ import annotations

import datetime as dt
import hashlib

import msgspec

Field = str | int | float | bool | None


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner should know at once. It holds no secret, and nothing of what was said."""

    kind: str  # such as budget
    subject: str  # whom it is about, such as the name of a key
    text: str  # one sentence for people
    fields: dict[str, Field] = {}  # the same in numbers, for programs
    occasion: str = ""  # the same kind, subject and occasion is told once
    unix: float
    keep_until_unix: float  # the same alert is known again until then

    @property
    def id(self) -> str:
        """By which the same alert is known again: 32 hexadecimal digits."""
        return hashlib.sha256(msgspec.json.encode((self.kind, self.subject, self.occasion))).hexdigest()[:32]

    def body(self) -> bytes:
        """The JSON that is posted. Slack, Mattermost and others show `text`, and ignore the rest."""
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

"""The result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """The severity of a result. Only a problem prevents the router from working."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `str()` gives the line that is printed."""

    state: State
    subject: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.state.value:8} {self.subject}: {self.message}" + (f". {self.remedy}" if self.remedy else "")

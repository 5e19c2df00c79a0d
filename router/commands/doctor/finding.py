"""The line of one check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a check ended. Only a problem keeps the router from working."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """The line of one check."""

    state: State
    subject: str
    told: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.state.value:8} {self.subject}: {self.told}" + (f". {self.remedy}" if self.remedy else "")

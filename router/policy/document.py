"""The policy artefact: two files, read from bytes, checked, and written back.

`policy.json` holds what a person may want to read: models, evidence, targets. `weights.npz` holds the predictor's arrays.
Neither holds text of a question, and neither is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from router.policy.decision import Rules
from router.policy.prediction import Predictor

DOCUMENT = "policy.json"
WEIGHTS = "weights.npz"


class PolicyError(ValueError):
    """The policy does not parse; says the file and what is wrong with it."""

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(f"{file}: {problem}")
        self.file = file


@dataclass(frozen=True, slots=True)
class Policy:
    """What calibration learnt and the proxy serves."""

    rules: Rules
    predictor: Predictor
    default_target: float
    about: Mapping[str, Any]  # when and from what it was made, for people

    @property
    def version(self) -> str:
        return self.rules.version


def parse(files: Mapping[str, bytes]) -> Policy:
    """Read a policy from the contents of its files, by name.

    Raises:
        PolicyError: a file is missing or does not fit its form.
    """
    raise NotImplementedError


def dump(policy: Policy) -> dict[str, bytes]:
    """The contents of the policy's files, by name; `parse` reads them back."""
    raise NotImplementedError

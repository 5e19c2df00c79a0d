"""The settings of an inspection."""

from __future__ import annotations

from dataclasses import dataclass

from calibration.answers.answers import Endpoint
from calibration.judging.judgements import Scorers
from calibration.sentinel.sample import SampledRequest
from router.policy.document import Policy
from router.policy.prices import PriceBook


@dataclass(frozen=True, slots=True)
class Plan:
    """What an inspection monitors, and with which models."""

    policy: Policy
    target: float
    margin: float  # how far below the target a type may be before it has drifted
    strong: Endpoint
    judge: Endpoint
    scorers: Scorers
    prices: PriceBook
    tracking_uri: str
    share: float  # of the routed requests to sample, in [0, 1]
    usd_a_day: float
    since: str  # the period of traffic to read, such as "2d"
    batch: bool = False
    concurrency: int = 8

    @property
    def strong_model(self) -> str:
        return self.policy.rules.strong.name

    @property
    def judge_model(self) -> str:
        return self.scorers.judge.split(":/")[-1]

    def monitors(self, sampled: SampledRequest) -> bool:
        """Whether the request was routed at the monitored target and is recorded as text."""
        return sampled.question is not None and sampled.target is not None and abs(sampled.target - self.target) < 1e-9

    def answered_by_strong(self, sampled: SampledRequest) -> bool:
        return sampled.model == self.strong_model

"""What a calibration costs: expected before, counted during, and never more than the budget."""

from __future__ import annotations

import json
import math
import os
import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.policies import models_named
from router.policy.features import read_question
from router.policy.prices import Price, PriceBook
from router.policy.usage import Usage

BATCH_DISCOUNT = 0.5  # of the Batch API
EXPECTED_OUTPUT_TOKENS = 150  # of an answer in two to four sentences, where none was seen yet
JUDGE_INPUT_TOKENS = 330  # of the judge's instructions, averaged over Correctness and Completeness
JUDGE_OUTPUT_TOKENS = 120
PER_MESSAGE_BYTES = 64  # more than the tokens that separate messages


class StoppedError(RuntimeError):
    """The calibration stops here and keeps what there is; the message says why and what to do."""


class BudgetError(StoppedError):
    """The next call could cross the budget."""


def price_of(prices: PriceBook, model: str) -> Price:
    """The price of `model`.

    Raises:
        PriceError: there is none; gives the line to add.
    """
    return models_named((model,), prices)[0].price


class Meter:
    """Counts tokens and dollars by purpose and model, and keeps calls within the budget. Safe to share among threads.

    A call reserves the most it can cost before it is sent, and settles with what it did cost. So what is spent and what
    is under way together never cross the budget.
    """

    def __init__(self, prices: PriceBook, budget_usd: float | None = None) -> None:
        self.prices = prices
        self.budget_usd = budget_usd
        self.usage: dict[tuple[str, str], Usage] = {}
        self.calls: dict[tuple[str, str], int] = {}
        self._spent: dict[str, float] = {}
        self._reserved = 0.0
        self._changed = threading.Condition()

    def spent_usd(self, purpose: str | None = None) -> float:
        """Dollars of this run, for one purpose or all."""
        return sum(self._spent.values()) if purpose is None else self._spent.get(purpose, 0.0)

    def left_usd(self) -> float:
        """Dollars of the budget that are not spent; without a budget infinitely many."""
        return math.inf if self.budget_usd is None else self.budget_usd - self.spent_usd()

    def reserve(self, most_usd: float) -> bool:
        """Whether a call that costs at most `most_usd` may be sent now; waits for none.

        Raises:
            BudgetError: not now, and not after what is under way has come back either.
        """
        with self._changed:
            if self.budget_usd is None or self.spent_usd() + self._reserved + most_usd <= self.budget_usd:
                self._reserved += most_usd
                return True
            if self._reserved > 1e-12:
                return False
            raise BudgetError(
                f"stopped before the budget of ${self.budget_usd:.2f}: ${self.spent_usd():.4f} is spent, and the next "
                f"call may cost ${most_usd:.4f}. What there is is kept; run again with a larger --budget-usd to go on"
            )

    def wait_to_reserve(self, most_usd: float) -> None:
        """As `reserve`, waiting for calls under way.

        Raises:
            BudgetError: there is nothing left to wait for.
        """
        while not self.reserve(most_usd):
            with self._changed:
                self._changed.wait(0.1)

    def settle(self, most_usd: float, purpose: str, model: str, usage: Usage | None, discount: float = 1.0) -> float:
        """Give back a reservation and count what was billed; returns the dollars."""
        cost = (self.prices.cost_usd(model, usage) or 0.0) * discount if usage is not None else 0.0
        with self._changed:
            self._reserved -= most_usd
            if usage is not None:
                key = (purpose, model)
                self.usage[key] = self.usage.get(key, Usage()) + usage
                self.calls[key] = self.calls.get(key, 0) + 1
                self._spent[purpose] = self._spent.get(purpose, 0.0) + cost
            self._changed.notify_all()
        return cost


def max_cost_usd(price: Price, body: Any, max_output_tokens: int) -> float:
    """The most that a call can cost: a token is at least a byte of the request, and the answer is capped."""
    read = len(json.dumps(body, ensure_ascii=False).encode()) + PER_MESSAGE_BYTES
    return price.cost_usd(Usage(input_tokens=read, output_tokens=max_output_tokens))


@dataclass(frozen=True, slots=True)
class ExpectedCost:
    """What a model, or the judge, is expected to be asked and to cost."""

    purpose: str  # answers or judge
    model: str
    calls: int
    cached: int
    usage: Usage
    cost_usd: float


def estimate_answers(
    model: str,
    asked: Iterable[tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]],
    cached: int,
    prices: PriceBook,
    mean_output_tokens: float | None = None,
    discount: float = 1.0,
) -> ExpectedCost:
    """The expected cost of asking `model`; each of `asked` is messages and tools."""
    tokens = [read_question(messages, tools).input_tokens for messages, tools in asked]
    usage = Usage(sum(tokens), round(len(tokens) * (mean_output_tokens or EXPECTED_OUTPUT_TOKENS)))
    cost = price_of(prices, model).total_usd(usage, len(tokens)) * discount
    return ExpectedCost("answers", model, len(tokens), cached, usage, cost)


@dataclass(frozen=True, slots=True)
class JudgedText:
    """What the judge reads of a question beside the answer, in characters."""

    characters: int
    verdicts: int  # how many are asked for


def estimate_judgements(
    judge: str, texts: Iterable[JudgedText], cached: int, prices: PriceBook, answer_tokens: float | None = None
) -> ExpectedCost:
    """The expected cost of the judge's verdicts."""
    calls = read = 0
    for text in texts:
        calls += text.verdicts
        each = JUDGE_INPUT_TOKENS + text.characters / 4 + (answer_tokens or EXPECTED_OUTPUT_TOKENS) * 1.5
        read += round(text.verdicts * each)
    usage = Usage(read, calls * JUDGE_OUTPUT_TOKENS)
    cost = price_of(prices, judge).total_usd(usage, calls) if calls else 0.0
    return ExpectedCost("judge", judge, calls, cached, usage, cost)


def record_spending(file: Path, cost_usd: float) -> None:
    """Add what a calibration cost to a file of the home folder, from where it is set against what routing saves."""
    if cost_usd <= 0:
        return
    row = {"run_id": secrets.token_hex(8), "unix_ns": time.time_ns(), "cost_usd": cost_usd}
    file.parent.mkdir(parents=True, exist_ok=True)
    out = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(out, json.dumps(row).encode() + b"\n")
    finally:
        os.close(out)

"""The cost of a calibration: its estimate, its count, and its budget."""

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
EXPECTED_OUTPUT_TOKENS = 150  # of an answer in two to four sentences, until the first answers are known
JUDGE_INPUT_TOKENS = 330  # of the judge's instructions, mean of Correctness and Completeness
JUDGE_OUTPUT_TOKENS = 120
PER_MESSAGE_BYTES = 64  # an upper bound for the tokens that separate messages


class StoppedError(RuntimeError):
    """The calibration stops, and its results so far are stored. The message says why, and how to continue."""


class BudgetError(StoppedError):
    """The next request could exceed the budget."""


def price_of(prices: PriceBook, model: str) -> Price:
    """The price of `model`.

    Raises:
        PriceError: the model has no price; the message has the line to add.
    """
    return models_named((model,), prices)[0].price


class Meter:
    """Counts tokens and cost by purpose and model, and keeps to the budget. Thread-safe.

    A request reserves its largest possible cost before it is sent, and settles with its actual cost. So the spent and
    the reserved amounts together never exceed the budget.
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
        """The cost of this run in dollars, for one purpose or in total."""
        return sum(self._spent.values()) if purpose is None else self._spent.get(purpose, 0.0)

    def left_usd(self) -> float:
        """The dollars of the budget that are not spent; infinite without a budget."""
        return math.inf if self.budget_usd is None else self.budget_usd - self.spent_usd()

    def reserve(self, max_usd: float) -> bool:
        """Reserve the largest cost of a request. Returns False if it has to wait for requests in flight.

        Raises:
            BudgetError: the budget does not cover it, even after all requests in flight.
        """
        with self._changed:
            if self.budget_usd is None or self.spent_usd() + self._reserved + max_usd <= self.budget_usd:
                self._reserved += max_usd
                return True
            if self._reserved > 1e-12:
                return False
            raise BudgetError(
                f"the budget of ${self.budget_usd:.2f} does not cover the next request: ${self.spent_usd():.4f} is "
                f"spent, and the request may cost ${max_usd:.4f}. Results so far are stored; to continue, run the same "
                "command with a larger --budget-usd"
            )

    def wait_to_reserve(self, max_usd: float) -> None:
        """Reserve the largest cost of a request, after waiting for requests in flight if needed.

        Raises:
            BudgetError: the budget does not cover it, even after all requests in flight.
        """
        while not self.reserve(max_usd):
            with self._changed:
                self._changed.wait(0.1)

    def settle(self, max_usd: float, purpose: str, model: str, usage: Usage | None, discount: float = 1.0) -> float:
        """Release a reservation and count the billed usage (None: nothing was billed); returns the cost in dollars."""
        cost = (self.prices.cost_usd(model, usage) or 0.0) * discount if usage is not None else 0.0
        with self._changed:
            self._reserved -= max_usd
            if usage is not None:
                key = (purpose, model)
                self.usage[key] = self.usage.get(key, Usage()) + usage
                self.calls[key] = self.calls.get(key, 0) + 1
                self._spent[purpose] = self._spent.get(purpose, 0.0) + cost
            self._changed.notify_all()
        return cost


def max_cost_usd(price: Price, body: Any, max_output_tokens: int) -> float:
    """The largest possible cost of a request: each input token has at least one byte, and the output is limited."""
    input_tokens = len(json.dumps(body, ensure_ascii=False).encode()) + PER_MESSAGE_BYTES
    return price.cost_usd(Usage(input_tokens=input_tokens, output_tokens=max_output_tokens))


@dataclass(frozen=True, slots=True)
class ExpectedCost:
    """The expected requests to a model or to the judge, and their cost."""

    purpose: str  # answers or judge
    model: str
    calls: int  # requests that are still to be sent
    cached: int  # answers or verdicts that are stored
    usage: Usage
    cost_usd: float


def estimate_answers(
    model: str,
    questions: Iterable[tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]],
    cached: int,
    prices: PriceBook,
    mean_output_tokens: float | None = None,
    discount: float = 1.0,
) -> ExpectedCost:
    """The expected cost of `questions` to a model, each given by its messages and tools."""
    tokens = [read_question(messages, tools).input_tokens for messages, tools in questions]
    usage = Usage(sum(tokens), round(len(tokens) * (mean_output_tokens or EXPECTED_OUTPUT_TOKENS)))
    cost = price_of(prices, model).total_usd(usage, len(tokens)) * discount
    return ExpectedCost("answers", model, len(tokens), cached, usage, cost)


@dataclass(frozen=True, slots=True)
class JudgedText:
    """The text that the judge reads in addition to an answer."""

    characters: int
    verdicts: int  # number of verdicts on the answer


def estimate_judgements(
    judge: str, texts: Iterable[JudgedText], cached: int, prices: PriceBook, answer_tokens: float | None = None
) -> ExpectedCost:
    """The expected cost of the judge's verdicts."""
    calls = input_tokens = 0
    for text in texts:
        calls += text.verdicts
        per_call = JUDGE_INPUT_TOKENS + text.characters / 4 + (answer_tokens or EXPECTED_OUTPUT_TOKENS) * 1.5
        input_tokens += round(text.verdicts * per_call)
    usage = Usage(input_tokens, calls * JUDGE_OUTPUT_TOKENS)
    cost = price_of(prices, judge).total_usd(usage, calls) if calls else 0.0
    return ExpectedCost("judge", judge, calls, cached, usage, cost)


def record_spending(file: Path, cost_usd: float) -> None:
    """Append the cost of a calibration to a file in the home folder. The router deducts it from the savings."""
    if cost_usd <= 0:
        return
    row = {"run_id": secrets.token_hex(8), "unix_ns": time.time_ns(), "cost_usd": cost_usd}
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, json.dumps(row).encode() + b"\n")
    finally:
        os.close(descriptor)

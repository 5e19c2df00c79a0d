"""The files of the sentinel: ledgers of sampled requests, of comparisons, and of reserved and spent dollars."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from calibration.answers.answers import Answer
from calibration.judging.judgements import Judgement
from calibration.ledger import Ledger
from calibration.outcomes import Outcome, Result
from calibration.sentinel.kept_quality import Observation
from calibration.sentinel.sample import SampledRequest

FOLDER = "sentinel"  # in the folder of the calibrations


class SentinelLedgers:
    """The ledgers of one sentinel, as a context manager. Only one process at a time can open them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        names = ("requests", "compared", "dollars", "answers", "judge", "judgements")
        self.requests, self.compared, self.dollars, self.answers, self.calls, self.judgements = (
            self._stack.enter_context(Ledger(folder / f"{name}.jsonl")) for name in names
        )

    def __enter__(self) -> SentinelLedgers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def spent_usd(self, day: str) -> float:
        """Dollars of a day: billed calls, and reservations of calls whose cost is still unknown."""
        rows = (self.dollars.get(key) or {} for key in self.dollars)
        return sum(float(row["usd"]) for row in rows if row.get("day") == day)

    def total_billed_usd(self) -> float:
        """Dollars of all stored answers and verdicts."""
        rows = (self.dollars.get(key) or {} for key in self.dollars)
        return sum(float(row.get("earlier", 0.0) + row["before" if row["open"] else "usd"]) for row in rows)

    def is_reserved(self, trace_id: str) -> bool:
        """Whether dollars are reserved for a request whose cost is still unknown."""
        return bool((self.dollars.get(trace_id) or {}).get("open"))

    def is_held(self, trace_id: str) -> bool:
        """Whether dollars that are reserved today cover all that is still to be paid for a request."""
        row = self.dollars.get(trace_id) or {}
        return bool(row.get("held")) and row["day"] == today()

    def reserve(self, trace_id: str, max_cost_usd: float) -> None:
        """Count the maximum cost of a request as spent today, in addition to what was counted today before."""
        row, day = self.dollars.get(trace_id) or {}, today()
        before, earlier = float(row.get("usd", 0.0)), float(row.get("earlier", 0.0))
        if row and row["day"] != day:
            before, earlier = 0.0, earlier + (row["before"] if row.get("held") else before)
        usd = before + max_cost_usd
        self.dollars.add(trace_id, {"day": day, "usd": usd, "before": before, "earlier": earlier, "open": True})

    def hold(self, trace_ids: Collection[str], usd: float, held: bool = True) -> None:
        """Keep the reservations of these requests for the next process, which pays nothing twice (`held`).

        Their joint cost so far, split equally, is billed.
        """
        for trace_id in trace_ids:
            row = dict(self.dollars.get(trace_id) or {})
            row["before"] += usd / len(trace_ids)
            self.dollars.add(trace_id, {**row, "held": held})

    def settle(self, trace_ids: Collection[str], usd: float) -> None:
        """Replace the reservations of these requests by their joint cost, split equally."""
        for trace_id in trace_ids:
            row = self.dollars.get(trace_id) or {"before": 0.0}
            cost = row["before"] + usd / len(trace_ids)
            kept = {"before": 0.0, "earlier": row.get("earlier", 0.0), "open": False}
            self.dollars.add(trace_id, {"day": today(), "usd": cost, **kept})

    def finished_trace_ids(self) -> set[str]:
        """Trace ids that need no further reading: the request is compared, or its content is not comparable."""
        incomparable = (key for key in self.requests if not (self.requests.get(key) or {}).get("comparable"))
        return {*self.compared, *incomparable}

    def add_request(self, sampled: SampledRequest, policy: str) -> None:
        """Store what `signals.py` reads from a request."""
        row = {
            "policy": policy,
            "question_type": sampled.question_type,
            "model": sampled.model,
            "novelty": sampled.novelty,
            "output_tokens": sampled.output_tokens,
            "failed": sampled.failed,
            "refused": sampled.refused,
            "comparable": sampled.question is not None,
            "unix": sampled.started_unix_ns // 10**9,
        }
        self.requests.add(sampled.trace_id, row)

    def add_answered_by_strong(self, sampled: SampledRequest, policy: str) -> None:
        """Store a request that the strong model answered, which loses no quality."""
        self.compared.add(sampled.trace_id, {**_comparison_row(sampled, policy), "by_cheap": False})

    def add_pair(self, sampled: SampledRequest, policy: str, cheap: Result, strong: tuple[str, Result]) -> None:
        """Store the judged answer of a cheaper model together with the strong model's name and judged answer."""
        assert sampled.question is not None
        outcomes = {
            sampled.model: {name: getattr(cheap, name) for name in Result.__slots__},
            strong[0]: {name: getattr(strong[1], name) for name in Result.__slots__},
        }
        scores = {"by_cheap": True, "cheap": cheap.score, "strong": strong[1].score}
        content = {"messages": list(sampled.question.messages), "tools": list(sampled.question.tools)}
        row = {**_comparison_row(sampled, policy), **scores, **content, "outcomes": outcomes}
        self.compared.add(sampled.trace_id, row)

    def observations(self, policy: str, target: float) -> Mapping[str, Sequence[Observation]]:
        """The comparisons under a policy at a target, by question type, in the order of comparison."""
        observations: dict[str, list[Observation]] = defaultdict(list)
        for _, row in self._comparisons():
            if row["policy"] == policy and abs(row["target"] - target) < 1e-9:
                observation = Observation(row["by_cheap"], row.get("cheap", 0.0), row.get("strong", 0.0))
                observations[row["question_type"]].append(observation)
        return observations

    def request_rows(self, policy: str) -> Sequence[Mapping[str, Any]]:
        """The rows that `add_request` stored under a policy, oldest first."""
        return [row for key in self.requests if (row := self.requests.get(key)) and row["policy"] == policy]

    def outcomes(self, models: Sequence[str]) -> list[Outcome]:
        """The pairs of these models as outcomes, under all policies."""
        return [
            Outcome(
                id=f"traffic/{key}",
                messages=row["messages"],
                results={model: Result(**row["outcomes"][model]) for model in models},
                question_type=row["question_type"],
                source="sentinel",
                tools=row["tools"] or None,
            )
            for key, row in self._comparisons()
            if row["by_cheap"] and set(models) <= set(row["outcomes"])
        ]

    def _comparisons(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Trace id and row of each comparison."""
        return ((key, row) for key in self.compared if (row := self.compared.get(key)) is not None)


def _comparison_row(sampled: SampledRequest, policy: str) -> dict[str, Any]:
    return {"policy": policy, "question_type": sampled.question_type, "target": sampled.target}


def build_result(answer: Answer, judgement: Judgement) -> Result:
    """An answer and its score as a result of an outcome."""
    return Result(judgement.score, answer.text, answer.usage.input_tokens, answer.usage.output_tokens)


def today() -> str:
    """Today's date in UTC, such as "2026-12-31"."""
    return f"{datetime.now(UTC):%Y-%m-%d}"

"""What the sentinel keeps: a row for each sampled request, for each that was compared, and for what was reserved."""

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
from calibration.sentinel.kept_quality import Observed
from calibration.sentinel.sample import Sampled

FOLDER = "sentinel"  # in the folder of the calibrations


class Rows:
    """The files of one sentinel; a context manager. One process at a time has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open = ExitStack()
        names = ("requests", "compared", "dollars", "answers", "judge", "judgements")
        self.requests, self.compared, self.dollars, self.answers, self.calls, self.judgements = (
            self._open.enter_context(Ledger(folder / f"{name}.jsonl")) for name in names
        )

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def spent_usd(self, day: str) -> float:
        """Dollars of a day: what was billed, and what is reserved where a call was interrupted before it was told."""
        rows = (self.dollars.get(key) or {} for key in self.dollars)
        return sum(float(row["usd"]) for row in rows if row.get("day") == day)

    def spent_ever_usd(self) -> float:
        """Dollars of the answers and verdicts that are kept."""
        rows = (self.dollars.get(key) or {} for key in self.dollars)
        return sum(float(row["usd"]) for row in rows if not row.get("open"))

    def is_open(self, trace_id: str) -> bool:
        """Whether dollars are reserved for a request, and what it cost is not known."""
        return bool((self.dollars.get(trace_id) or {}).get("open"))

    def reserve(self, trace_id: str, most_usd: float) -> None:
        """Count the most that a request can cost as spent today, beside what it may have cost before today."""
        row, day = self.dollars.get(trace_id) or {}, today()
        before = float(row["usd"]) if row.get("day") == day else 0.0
        self.dollars.add(trace_id, {"day": day, "usd": before + most_usd, "before": before, "open": True})

    def settle(self, trace_ids: Collection[str], usd: float) -> None:
        """Count what requests cost together, in equal parts, in the place of what was reserved for them."""
        for trace_id in trace_ids:
            row = self.dollars.get(trace_id) or {"before": 0.0}
            cost = row["before"] + usd / len(trace_ids)
            self.dollars.add(trace_id, {"day": today(), "usd": cost, "before": 0.0, "open": False})

    def known(self) -> set[str]:
        """The trace ids that need not be read again: they are compared, or hold no text to compare."""
        silent = (key for key in self.requests if not (self.requests.get(key) or {}).get("comparable"))
        return {*self.compared, *silent}

    def note(self, sampled: Sampled, policy: str) -> None:
        """Note what a request tells without a judge."""
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

    def answered_by_strong(self, sampled: Sampled, policy: str) -> None:
        """Note a request that the strong model answered itself, so that nothing was lost."""
        self.compared.add(sampled.trace_id, {**_compared(sampled, policy), "by_cheap": False})

    def pair(self, sampled: Sampled, policy: str, cheap: Result, strong: tuple[str, Result]) -> None:
        """Note an answer of a cheaper model beside the strong model's."""
        assert sampled.question is not None
        outcomes = {
            sampled.model: {name: getattr(cheap, name) for name in Result.__slots__},
            strong[0]: {name: getattr(strong[1], name) for name in Result.__slots__},
        }
        scores = {"by_cheap": True, "cheap": cheap.score, "strong": strong[1].score}
        said = {"messages": list(sampled.question.messages), "tools": list(sampled.question.tools)}
        row = {**_compared(sampled, policy), **scores, **said, "outcomes": outcomes}
        self.compared.add(sampled.trace_id, row)

    def observed(self, policy: str, target: float) -> Mapping[str, Sequence[Observed]]:
        """What was compared under a policy at a target, by type, in the order in which it was."""
        found: dict[str, list[Observed]] = defaultdict(list)
        for row in self._compared():
            if row["policy"] == policy and abs(row["target"] - target) < 1e-9:
                seen = Observed(row["by_cheap"], row.get("cheap", 0.0), row.get("strong", 0.0))
                found[row["question_type"]].append(seen)
        return found

    def seen(self, policy: str) -> Sequence[Mapping[str, Any]]:
        """What the requests of a policy told without a judge, in the order in which they were noted."""
        return [row for key in self.requests if (row := self.requests.get(key)) and row["policy"] == policy]

    def outcomes(self, models: Sequence[str]) -> list[Outcome]:
        """The pairs of these models as outcomes, whatever policy they were routed by."""
        return [
            Outcome(
                id=f"traffic/{key}",
                messages=row["messages"],
                results={model: Result(**row["outcomes"][model]) for model in models},
                question_type=row["question_type"],
                source="sentinel",
                tools=row["tools"] or None,
            )
            for key, row in self._with_keys()
            if row["by_cheap"] and set(models) <= set(row["outcomes"])
        ]

    def _compared(self) -> Iterator[Mapping[str, Any]]:
        return (row for _, row in self._with_keys())

    def _with_keys(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        return ((key, row) for key in self.compared if (row := self.compared.get(key)) is not None)


def _compared(sampled: Sampled, policy: str) -> dict[str, Any]:
    return {"policy": policy, "question_type": sampled.question_type, "target": sampled.target}


def result_of(answer: Answer, judgement: Judgement) -> Result:
    """A judged answer."""
    return Result(judgement.score, answer.text, answer.usage.input_tokens, answer.usage.output_tokens)


def today() -> str:
    """The day in UTC."""
    return f"{datetime.now(UTC):%Y-%m-%d}"

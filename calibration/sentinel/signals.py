"""Drift signals that need no judge. Each compares sampled requests with a limit and has anytime-valid evidence.

The claims, as ratios with a mean of at most 1 (`betting.py`):

- `mix`: the total variation distance between the question types of the requests and those of the calibration is at most
  0.2. Then any set of types that is chosen from earlier requests has at most its calibrated share plus 0.2.
- `novelty`: the share of requests above the policy's novelty limit is at most twice that of the calibration.
- `errors`, `refusals`: at most 2 % of the requests. A policy does not store these shares of the calibration.
- `longer TYPE`: the answers of a model have at most 1.5 times the calibration's tokens on average.
- `shorter TYPE`: the answers of a model have at least half of the calibration's tokens on average. An answer counts at
  most eight times the calibration's tokens.

All signals together raise a false alarm with probability 5 % over the lifetime of a policy: each signal has an equal
share of the error (Bonferroni).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from calibration.sentinel import betting
from calibration.sentinel.kept_quality import ERROR, log_evidence_threshold
from router.policy.rules import Rules
from router.policy.sentinel import Signal
from router.policy.vocabulary import Floats

MAX_MIX_DISTANCE = 0.2  # total variation distance; the dashboard uses the same limit
MAX_NOVELTY_FACTOR = 2.0
MAX_FAILED_SHARE = MAX_REFUSED_SHARE = 0.02
MAX_LENGTH, MIN_LENGTH, LENGTH_CAP = 1.5, 0.5, 8.0  # multiples of the calibration's mean length


class Claim(NamedTuple):
    """A claim that some value of the requests stays within a limit."""

    name: str
    values: Floats  # (n,)
    limit: float  # for the mean of the values
    ratios: Floats  # (n,)


def compute_signals(rows: Sequence[Mapping[str, Any]], rules: Rules) -> list[Signal]:
    """The signals of rows of `SentinelLedgers.request_rows`, oldest first; a claim without data gives no signal."""
    lengths = sum(2 * len(evidence.output_tokens) for evidence in rules.evidence.values())
    threshold = log_evidence_threshold(lengths + 4, ERROR)
    signals = []
    for claim in _claims(rows, rules):
        if len(claim.ratios):
            evidence = max(betting.max_log_evidence(claim.ratios)[0] / threshold, 0.0)
            signals.append(Signal(claim.name, len(claim.ratios), float(np.mean(claim.values)), claim.limit, evidence))
    return signals


def _claims(rows: Sequence[Mapping[str, Any]], rules: Rules) -> Iterator[Claim]:
    failed = np.array([float(row["failed"]) for row in rows])
    refused = np.array([float(row["refused"]) for row in rows if not row["failed"]])
    novel = np.array([float(row["novelty"] > rules.novelty_limit) for row in rows if row["novelty"] is not None])
    max_novel_share = min(MAX_NOVELTY_FACTOR * (1 - rules.novelty_limit), 1.0) or 1e-3
    yield Claim("errors", failed, MAX_FAILED_SHARE, failed / MAX_FAILED_SHARE)
    yield Claim("refusals", refused, MAX_REFUSED_SHARE, refused / MAX_REFUSED_SHARE)
    yield Claim("novelty", novel, max_novel_share, novel / max_novel_share)
    yield _mix_claim([row["question_type"] for row in rows], rules)
    tokens_by_type: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row["output_tokens"] and not row["failed"]:
            tokens_by_type[row["question_type"], row["model"]].append(float(row["output_tokens"]))
    for (question_type, model), tokens in tokens_by_type.items():
        calibrated = rules.evidence_of(question_type).output_tokens.get(model, 0.0)
        if calibrated > 0:
            lengths = np.array(tokens) / calibrated
            capped = np.minimum(lengths, LENGTH_CAP)
            yield Claim(f"longer {question_type} {model}", lengths, MAX_LENGTH, lengths / MAX_LENGTH)
            ratios = (LENGTH_CAP - capped) / (LENGTH_CAP - MIN_LENGTH)
            yield Claim(f"shorter {question_type} {model}", capped, MIN_LENGTH, ratios)


def _mix_claim(types: Sequence[str], rules: Rules) -> Claim:
    """The claim about the mix of measured types; the calibration's shares of other types are unknown."""
    calibrated = {name: evidence.n for name, evidence in rules.evidence.items() if evidence.kind == "measured"}
    total = sum(calibrated.values()) or 1
    shares = {name: n / total for name, n in calibrated.items()}
    counts: Counter[str] = Counter()  # of the earlier requests
    distances, ratios = [], []
    for question_type in types:
        if question_type not in shares:
            continue
        n = counts.total() or 1
        more_frequent = {name for name, count in counts.items() if count / n > shares[name]}
        limit = sum(shares[name] for name in more_frequent) + MAX_MIX_DISTANCE
        hit = float(question_type in more_frequent)
        ratios.append(hit / limit if counts else 1.0)
        distances.append(hit - limit + MAX_MIX_DISTANCE)
        counts[question_type] += 1
    return Claim("mix", np.array(distances), MAX_MIX_DISTANCE, np.array(ratios))

"""What sampled requests tell without a judge, each against a limit, with evidence that may be looked at every day.

The claims, as ratios with a mean of at most 1 (`betting.py`):

- `mix`: at most a share of 0.2 of the requests would have to be of another type to have the calibration's mix. Then any
  set of types that is chosen by the past has at most its calibrated share and 0.2.
- `novelty`: at most twice the calibration's share of requests are beyond the policy's novelty limit.
- `errors`, `refusals`: at most 2 % of the requests. A policy does not record what these were in the calibration.
- `longer TYPE`: answers of a model have at most 1.5 times the calibration's tokens on average.
- `shorter TYPE`: they have at least half of them on average, where what is beyond eight times counts as that much.

All together err once in 20 policies, if none of it changed: each has an equal share of 5 % (Bonferroni).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from calibration.sentinel import betting
from calibration.sentinel.kept_quality import ERROR, needed
from router.policy.rules import Rules
from router.policy.sentinel import Signal
from router.policy.vocabulary import Floats

MIX_DISTANCE = 0.2  # half the sum of the differences in share; what the page calls much like the calibration's
NOVEL_TIMES = 2.0
FAILED_SHARE = REFUSED_SHARE = 0.02
LONGER, SHORTER, CAPPED = 1.5, 0.5, 8.0  # times the calibration's mean length


def signals(rows: Sequence[Mapping[str, Any]], rules: Rules) -> list[Signal]:
    """Every claim of which the rows, oldest first, tell anything."""
    claims = list(_claims(rows, rules))
    lengths = sum(2 * len(evidence.output_tokens) for evidence in rules.evidence.values())
    least = needed(lengths + 4, ERROR)
    found = []
    for name, values, limit, ratios in claims:
        if len(ratios):
            won = max(betting.evidence(ratios)[0] / least, 0.0)
            found.append(Signal(name, len(ratios), float(np.mean(values)), limit, won))
    return found


def _claims(rows: Sequence[Mapping[str, Any]], rules: Rules) -> Iterator[tuple[str, Floats, float, Floats]]:
    """Name, values, limit and ratios."""
    failed = np.array([float(row["failed"]) for row in rows])
    refused = np.array([float(row["refused"]) for row in rows if not row["failed"]])
    beyond = np.array([float(row["novelty"] > rules.novelty_limit) for row in rows if row["novelty"] is not None])
    novel = min(NOVEL_TIMES * (1 - rules.novelty_limit), 1.0) or 1e-3
    yield from (
        ("errors", failed, FAILED_SHARE, failed / FAILED_SHARE),
        ("refusals", refused, REFUSED_SHARE, refused / REFUSED_SHARE),
        ("novelty", beyond, novel, beyond / novel),
    )
    yield _mix([row["question_type"] for row in rows], rules)
    lengths: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row["output_tokens"] and not row["failed"]:
            lengths[row["question_type"], row["model"]].append(float(row["output_tokens"]))
    for (kind, model), tokens in lengths.items():
        usual = rules.evidence_of(kind).output_tokens.get(model, 0.0)
        if usual > 0:
            times = np.array(tokens) / usual
            short = (CAPPED - np.minimum(times, CAPPED)) / (CAPPED - SHORTER)
            yield f"longer {kind} {model}", times, LONGER, times / LONGER
            yield f"shorter {kind} {model}", np.minimum(times, CAPPED), SHORTER, short


def _mix(types: Sequence[str], rules: Rules) -> tuple[str, Floats, float, Floats]:
    """The claim about measured types: only of these it is known how often the calibration had them."""
    calibrated = {name: evidence.n for name, evidence in rules.evidence.items() if evidence.kind == "measured"}
    total = sum(calibrated.values()) or 1
    shares = {name: n / total for name, n in calibrated.items()}
    before: Counter[str] = Counter()
    within, ratios = [], []
    for kind in types:
        if kind not in shares:
            continue
        n = before.total() or 1
        more = {name for name, count in before.items() if count / n > shares[name]}
        limit = sum(shares[name] for name in more) + MIX_DISTANCE
        ratios.append(float(kind in more) / limit if before else 1.0)
        within.append(float(kind in more) - limit + MIX_DISTANCE)
        before[kind] += 1
    return "mix", np.array(within), MIX_DISTANCE, np.array(ratios)

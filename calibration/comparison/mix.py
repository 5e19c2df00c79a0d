"""The quality and saving of a policy for a mix: other shares of question types than the outcomes have.

The weight of an outcome is the share of its type in the mix divided by the number of outcomes of that type. Types
without outcomes go to the strong model, whose quality and cost are assumed to be those of the other types.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from calibration.learning.certificate import MIN_TYPE_QUESTIONS
from calibration.learning.corpus import Ints
from calibration.learning.intervals import bootstrap
from calibration.learning.replay import Replay, pick_columns
from calibration.outcomes import InputError, question_types
from router.policy.document import Policy
from router.policy.mix import target_support
from router.policy.rules import Interval
from router.policy.vocabulary import Floats


def read_mix(path: Path, types: Collection[str]) -> dict[str, float]:
    """Read the share of each type from a JSON object or from CSV lines `type,share`; the result sums to 1.

    `types` are the types with outcomes.

    Raises:
        InputError: the file cannot be read, a share is not a number of at least 0, all shares are 0, a type occurs
            twice, or no type has outcomes.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(path, None, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(path, None, f"is not text in UTF-8: {error}") from error
    is_json = path.suffix == ".json" or text.lstrip()[:1] in ("{", "[")
    shares: dict[str, float] = {}
    for line, name, value in _parse_json(path, text) if is_json else _parse_csv(path, text):
        if name in shares:
            raise InputError(path, line, f"the type {name!r} occurs twice")
        shares[name] = _parse_share(path, line, name, value)
    return normalise_shares(path, shares, types)


def normalise_shares(path: Path, shares: Mapping[str, float], types: Collection[str]) -> dict[str, float]:
    """Scale the shares so that they sum to 1.

    Raises:
        InputError: all shares are 0, or no type with a share is one of `types`.
    """
    try:
        total = math.fsum(shares.values())
    except OverflowError as error:
        raise InputError(path, None, "the shares are too large to add up") from error
    if not total:
        raise InputError(path, None, "no type has a share above 0")
    if not any(share for name, share in shares.items() if name in types):
        raise InputError(path, None, f"none of its types has outcomes. Types with outcomes: {', '.join(sorted(types))}")
    return {name: share / total for name, share in shares.items()}


def _parse_json(path: Path, text: str) -> list[tuple[int | None, str, Any]]:
    try:
        # tuples of pairs, since a dict would hide a type that occurs twice
        rows = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise InputError(path, None, f"is not JSON: {error}") from error
    if not isinstance(rows, tuple):
        raise InputError(path, None, 'is not an object such as {"math/dates": 0.4, "law/clauses": 0.6}')
    return [(None, name, share) for name, share in rows]


def _parse_csv(path: Path, text: str) -> list[tuple[int | None, str, Any]]:
    rows: list[tuple[int | None, str, Any]] = []
    reader = csv.reader(text.splitlines())
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            is_heading = not rows and [cell.lower() for cell in cells] in (
                ["type", "share"],
                ["question_type", "share"],
            )
            if is_heading or not any(cells):
                continue
            if len(cells) != 2 or not cells[0]:
                raise InputError(path, reader.line_num, "expected type,share")
            rows.append((reader.line_num, cells[0], cells[1]))
    except csv.Error as error:
        raise InputError(path, reader.line_num, f"is not CSV: {error}") from error
    return rows


def _parse_share(path: Path, line: int | None, name: str, value: Any) -> float:
    try:
        share = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        share = math.nan
    if not math.isfinite(share) or (isinstance(value, str) and line is None):  # JSON has numbers, so text is an error
        raise InputError(path, line, f"the share of {name!r} is not a number: {value!r}")
    if share < 0:
        raise InputError(path, line, f"the share of {name!r} is negative: {value}")
    return share


def evaluate_mix(
    policy: Policy, replay: Replay, groups: Ints, mix: Mapping[str, float], rounds: int, seed: int
) -> dict[str, Any]:
    """The quality and saving of every target for a mix, with 95 % intervals; `mix` has shares that sum to 1."""
    types = question_types(replay.outcomes)
    counts = {name: types.count(name) for name, share in mix.items() if share}
    missing = sorted(name for name, n in counts.items() if not n)
    rows = np.flatnonzero([name in counts for name in types])
    names, places = np.unique([types[row] for row in rows], return_inverse=True)
    shares = np.array([mix[name] for name in names.tolist()])
    known = float(shares.sum())

    def share(table: Floats) -> Interval:
        """The mean of the chosen models relative to the strong model's; types without outcomes count as 1."""
        of_chosen, of_strong = pick_columns(table, chosen)[rows], table[rows, -1]

        def statistic(drawn: Ints) -> float:
            # weights by the number of drawn rows of each type, so that every resample has the shares of the mix
            weights = (shares / np.maximum(np.bincount(places[drawn], minlength=len(shares)), 1))[places[drawn]]
            strong = float(weights @ of_strong[drawn])
            return known * float(weights @ of_chosen[drawn]) / strong + 1 - known if strong else math.nan

        return bootstrap(statistic, groups[rows], rounds, seed)

    targets = {}
    for rule in policy.rules.targets:
        chosen = replay.choose(policy.rules, rule.target)
        kept, cost = share(replay.scores), share(replay.costs_usd)
        targets[f"{rule.target:g}"] = {
            "promise": rule.promise.value if rule.quality_per_usd is not None else "none",
            "quality_kept": kept,
            "saved_cost": Interval(1 - cost.high, 1 - cost.estimate, 1 - cost.low),
            "holds": target_support(kept, rule.target),
        }
    return {
        "shares": dict(mix),
        "n": len(rows),
        "missing": {"types": missing, "share": math.fsum(mix[name] for name in missing)},
        "few": sorted(name for name, n in counts.items() if 0 < n < MIN_TYPE_QUESTIONS),
        "targets": targets,
    }

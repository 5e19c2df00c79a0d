"""What a policy keeps and saves where types of question come in other shares than in the outcomes.

Each outcome counts by its type's share in the mix over that type's outcomes. What the mix holds of types without
outcomes goes to the strong model, whose quality and dollars there are taken to be as on the other types.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calibration.learning.certificate import MIN_TYPE_QUESTIONS
from calibration.learning.corpus import Ints
from calibration.learning.replay import Replay, bootstrap, picked
from calibration.outcomes import InputError, Outcome
from router.policy.decision import Interval
from router.policy.document import Policy
from router.policy.mix import holds
from router.policy.vocabulary import Floats


def read_mix(path: Path, types: Collection[str]) -> dict[str, float]:
    """The share of each type, of a JSON object or of CSV lines `type,share`; the shares sum to 1.

    `types` are those that have outcomes.

    Raises:
        InputError: the file cannot be read, a share is not a number of at least 0, all are 0, a type is there twice, or
            none has outcomes.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(path, None, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(path, None, f"is not text in UTF-8: {error}") from error
    is_json = path.suffix == ".json" or text.lstrip()[:1] in ("{", "[")
    shares: dict[str, float] = {}
    for line, name, given in _of_json(path, text) if is_json else _of_csv(path, text):
        if name in shares:
            raise InputError(path, line, f"the type {name!r} has a share already")
        shares[name] = _share(path, line, name, given)
    return normalised(path, shares, types)


def normalised(path: Path, shares: Mapping[str, float], types: Collection[str]) -> dict[str, float]:
    """Shares that sum to 1.

    Raises:
        InputError: all are 0, or no type with a share is one of `types`.
    """
    try:
        total = math.fsum(shares.values())
    except OverflowError as error:
        raise InputError(path, None, "the shares are too large to be summed") from error
    if not total:
        raise InputError(path, None, "is empty: no type has a share above 0")
    if not any(share for name, share in shares.items() if name in types):
        raise InputError(path, None, f"none of its types has outcomes; these have: {', '.join(sorted(types))}")
    return {name: share / total for name, share in shares.items()}


def _of_json(path: Path, text: str) -> list[tuple[int | None, str, Any]]:
    try:
        # pairs are kept as tuples: an object would hide a type that is there twice, and a list is no object
        rows = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise InputError(path, None, f"is not JSON: {error}") from error
    if not isinstance(rows, tuple):
        raise InputError(path, None, 'is not an object such as {"math/dates": 0.4, "law/clauses": 0.6}')
    return [(None, name, share) for name, share in rows]


def _of_csv(path: Path, text: str) -> list[tuple[int | None, str, Any]]:
    found: list[tuple[int | None, str, Any]] = []
    reader = csv.reader(text.splitlines())
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            is_heading = not found and [cell.lower() for cell in cells] in (
                ["type", "share"],
                ["question_type", "share"],
            )
            if is_heading or not any(cells):
                continue
            if len(cells) != 2 or not cells[0]:
                raise InputError(path, reader.line_num, "expected type,share")
            found.append((reader.line_num, cells[0], cells[1]))
    except csv.Error as error:
        raise InputError(path, reader.line_num, f"is not CSV: {error}") from error
    return found


def _share(path: Path, line: int | None, name: str, given: Any) -> float:
    try:
        share = float(given) if isinstance(given, str | int | float) and not isinstance(given, bool) else math.nan
    except (ValueError, OverflowError):
        share = math.nan
    if not math.isfinite(share) or (isinstance(given, str) and line is None):  # JSON has numbers of its own
        raise InputError(path, line, f"the share of {name!r} is not a number: {given!r}")
    if share < 0:
        raise InputError(path, line, f"the share of {name!r} is negative: {given}")
    return share


def mixed(
    policy: Policy, replay: Replay, groups: Ints, mix: Mapping[str, float], rounds: int, seed: int
) -> dict[str, Any]:
    """What each promise of the policy gives for a mix, with 95 % intervals; `mix` has shares that sum to 1."""
    types = types_of(replay.outcomes)
    counts = {name: types.count(name) for name, share in mix.items() if share}
    missing = sorted(name for name, n in counts.items() if not n)
    rows = np.flatnonzero([name in counts for name in types])
    names, places = np.unique([types[row] for row in rows], return_inverse=True)
    shares = np.array([mix[name] for name in names.tolist()])
    known = float(shares.sum())

    def share(table: Floats) -> Interval:
        """The share of the strong model's, by the mix; what no outcome tells of is the strong model's by itself."""
        of_chosen, of_strong = picked(table, chosen)[rows], table[rows, -1]

        def statistic(drawn: Ints) -> float:
            # as many as were drawn of each type, so that every resample has the shares of the mix
            weights = (shares / np.maximum(np.bincount(places[drawn], minlength=len(shares)), 1))[places[drawn]]
            strong = float(weights @ of_strong[drawn])
            return known * float(weights @ of_chosen[drawn]) / strong + 1 - known if strong else math.nan

        return bootstrap(statistic, groups[rows], rounds, seed)

    targets = {}
    for rule in policy.rules.targets:
        chosen = replay.chosen(policy.rules, rule.target)
        kept, cost = share(replay.scores), share(replay.costs_usd)
        targets[f"{rule.target:g}"] = {
            "promise": rule.promise.value if rule.quality_per_usd is not None else "none",
            "quality_kept": kept,
            "saved_cost": Interval(1 - cost.high, 1 - cost.estimate, 1 - cost.low),
            "holds": holds(kept, rule.target),
        }
    return {
        "shares": dict(mix),
        "n": len(rows),
        "missing": {"types": missing, "share": math.fsum(mix[name] for name in missing)},
        "few": sorted(name for name, n in counts.items() if 0 < n < MIN_TYPE_QUESTIONS),
        "targets": targets,
    }


def types_of(outcomes: Sequence[Outcome]) -> list[str]:
    """The recorded type of each outcome."""
    return [outcome.question_type or "unknown" for outcome in outcomes]

"""Numbers as text, the same in every form of the report."""

from __future__ import annotations

import math

from router.policy.rules import Interval, Promise, Rule

MISSING = "–"


def format_interval(value: Interval | None, signed: bool = False) -> str:
    """An estimate with its 95 % interval, in percent or percentage points."""
    if value is None:
        return MISSING
    sign = "+" if signed else ""
    return f"{value.estimate * 100:{sign}.0f} [{value.low * 100:{sign}.0f}, {value.high * 100:{sign}.0f}]"


def format_share(value: Interval | None) -> str:
    """An estimate as a number from 0 to 1."""
    return MISSING if value is None else f"{value.estimate:.2f}"


def format_usd(value: float, digits: int = 6) -> str:
    """Dollars; a dash for NaN."""
    return MISSING if math.isnan(value) else f"{value:.{digits}f}"


def format_promise(rule: Rule) -> str:
    """The promise of a target, and the number of questions that would certify it."""
    if rule.certified:
        return Promise.CERTIFIED.value
    more = f"ask {rule.more_questions_needed:,} more" if rule.more_questions_needed else "more would not help"
    if rule.quality_per_usd is None:
        return f"no; {more}"
    missed = f", missed in {rule.falls_short:.0%} of resplits" if rule.falls_short is not None else ""
    return f"expected{missed}; {more}"

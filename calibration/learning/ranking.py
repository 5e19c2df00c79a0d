"""Metrics of a ranking of questions for escalation to the strong model.

After RouteLLM (Ong et al. 2024, section 3): the performance gap recovered (PGR) is 0 for always-cheap and 1 for
always-strong. APGR is its mean over all shares of strong calls, and CPT(x) is the share of strong calls at which the
PGR reaches x.
"""

from __future__ import annotations

import math

import numpy as np

from router.policy.vocabulary import Floats


def pgr_curve(ranks: Floats, scores: Floats) -> Floats:
    """The PGR after escalating the k questions of highest rank, for k from 0 to n. Shape (n+1,).

    `ranks` is (n,), `scores` (n, M). Questions of equal rank share their gain. NaN where the models score the same.
    """
    gains = scores[:, -1] - scores[:, 0]
    order = np.argsort(-ranks, kind="stable")
    _, first, counts = np.unique(-ranks[order], return_index=True, return_counts=True)
    shared = np.repeat(np.add.reduceat(gains[order], first) / counts, counts)
    total = gains.sum()
    return np.concatenate([[0.0], np.cumsum(shared)]) / (total if total else np.nan)


def apgr(ranks: Floats, scores: Floats) -> float:
    """The average performance gap recovered; 0.5 for a random ranking, NaN where the models score the same."""
    return float(np.trapezoid(pgr_curve(ranks, scores), dx=1 / len(ranks)))


def cpt(ranks: Floats, scores: Floats, recovered: float) -> float:
    """The smallest share of strong calls that recovers this share of the gap; NaN where none does."""
    reached = np.flatnonzero(pgr_curve(ranks, scores) >= recovered)
    return float(reached[0] / len(ranks)) if len(reached) else float("nan")


def saved_cost(ranks: Floats, scores: Floats, costs_usd: Floats, kept: float) -> float:
    """The largest share of the strong model's cost that the ranking saves while it keeps `kept` of its quality.

    The threshold is chosen on the same questions, so this measures the ranking. The certificate has the promise.
    """
    order = np.argsort(-ranks, kind="stable")
    gains, extra = (np.concatenate([[0.0], np.cumsum((t[:, -1] - t[:, 0])[order])]) for t in (scores, costs_usd))
    enough = scores[:, 0].sum() + gains >= kept * scores[:, -1].sum()
    spent = costs_usd[:, 0].sum() + extra
    return 1 - quotient(float(spent[enough].min()), float(costs_usd[:, -1].sum())) if enough.any() else 0.0


def saved_share(costs_usd: Floats, strong_costs_usd: Floats) -> float:
    """The share of the strong model's cost that is saved; NaN where the strong model costs nothing."""
    return 1 - quotient(float(costs_usd.sum()), float(strong_costs_usd.sum()))


def quotient(value: float, total: float) -> float:
    """`value` divided by `total`; NaN where the total is 0."""
    return value / total if total else math.nan

"""How well requests are ranked for escalation, against a plain yardstick and against RouteLLM's published figures.

    python benchmarks/ranking.py ../shared/data [--seeds 3] [--rounds 200] [--out FILE]

The yardstick is what an afternoon with scikit-learn gives: a ridge on word TF-IDF and hand features, averaged with the
means of the predicted question type. Both learn from the same rows. APGR and CPT are RouteLLM's (Ong et al. 2024);
intervals are a bootstrap over near-duplicate groups of the mean over seeds; differences are paired.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from calibration.duplicates import near_duplicate_groups
from calibration.examples import Examples
from calibration.learning import TEST_SHARE, examples_of, split
from calibration.outcomes import Outcome, read_outcomes
from calibration.policies import load_prices, models_named
from calibration.predictor import fit
from calibration.replay import apgr, bootstrap, cpt, replayed, saved_cost
from router.policy.features import Features
from router.policy.inputs import numbers, terms, turn_text
from router.policy.prediction import predict

PAIR = ("gpt-4o-mini", "gpt-4o")
ROUTELLM = ("mixtral-8x7b", "gpt-4-1106-preview")
MMLU_ROWS = 1531  # labelled questions that RouteLLM's routers of the same table had
MIN_TYPE_ROWS = 60
METHODS = ("router", "yardstick")
KEPT = (0.95, 0.97, 0.99)


@dataclass(frozen=True, slots=True)
class Ranked:
    """What the methods said of n questions over some seeds; NaN where a question was learnt from."""

    gaps: dict[str, np.ndarray]  # method -> (seeds, n)
    per_usd: dict[str, np.ndarray] | None
    scores: np.ndarray  # (n, 2)
    costs_usd: np.ndarray | None
    groups: np.ndarray

    def part(self, rows: np.ndarray) -> Ranked:
        """The same for some questions."""

        def cut(ranks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {method: values[:, rows] for method, values in ranks.items()}

        costs = None if self.costs_usd is None else self.costs_usd[rows]
        per_usd = None if self.per_usd is None else cut(self.per_usd)
        return Ranked(cut(self.gaps), per_usd, self.scores[rows], costs, self.groups[rows])


def yardstick(train: Examples, asked: Sequence[Features]) -> np.ndarray:
    """The gap that the plain yardstick expects of each question asked (n,)."""

    def text(features: Features) -> str:
        return turn_text(features, features.turns[-1])

    def hand(rows: Sequence[Features]) -> np.ndarray:
        return np.array([numbers(f, f.turns[-1]) for f in rows])

    tfidf = TfidfVectorizer(analyzer=terms, min_df=3, sublinear_tf=True).fit([text(f) for f in train.features])
    scale = StandardScaler().fit(hand(train.features))

    def inputs(rows: Sequence[Features]) -> sp.csr_matrix:
        scaled = np.clip(scale.transform(hand(rows)), -4, 4) * 0.2
        return sp.csr_matrix(sp.hstack([tfidf.transform([text(f) for f in rows]), scaled]))

    known, new = inputs(train.features), inputs(asked)
    types = np.array(train.types)
    several = len(set(train.types)) > 1
    classifier = (LogisticRegression(C=10, max_iter=300) if several else DummyClassifier()).fit(known, types)
    overall = train.scores.mean(axis=0)
    means = [
        (train.scores[types == t].sum(axis=0) + 20 * overall) / ((types == t).sum() + 20) for t in np.unique(types)
    ]
    quality = (Ridge(10).fit(known, train.scores).predict(new) + classifier.predict_proba(new) @ np.array(means)) / 2
    return np.asarray(quality[:, 1] - quality[:, 0])


def router(train: Examples, asked: Sequence[Features], models: Sequence[str], seed: int) -> np.ndarray:
    """The gap that the router's predictor expects of each question asked (n,)."""
    predictor = fit(train, models, seed).export()
    predictions = [predict(predictor, features) for features in asked]
    return np.array([p.quality[models[1]] - p.quality[models[0]] for p in predictions])


def gpt4o_pair(calibration: Sequence[Outcome], test: Sequence[Outcome], seeds: int) -> Ranked:
    """Learn from what a policy of each seed is fitted on, rank the test questions."""
    models = models_named(PAIR, load_prices())
    examples = examples_of(calibration, PAIR)
    gaps: dict[str, list[np.ndarray]] = {method: [] for method in METHODS}
    per_usd: dict[str, list[np.ndarray]] = {method: [] for method in METHODS}
    for seed in range(seeds):
        train = examples.part(split(examples.groups, TEST_SHARE, seed)[0])
        replay = replayed(test, fit(train, PAIR, seed).export(), models)
        plain = yardstick(train, replay.features)
        dollars = replay.gaps / replay.gaps_per_usd  # the yardstick has the router's own expectation of dollars
        for method, gap in zip(METHODS, (replay.gaps, plain), strict=True):
            gaps[method].append(gap)
            per_usd[method].append(gap / dollars)
    groups = near_duplicate_groups([outcome.text for outcome in test])
    return Ranked(_stacked(gaps), _stacked(per_usd), replay.scores, replay.costs_usd, groups)


def _stacked(ranks: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    return {method: np.array(values) for method, values in ranks.items()}


def routellm(outcomes: Sequence[Outcome], seeds: int) -> dict[str, Ranked]:
    """RouteLLM's pair on its three benchmarks: MMLU and MT-Bench from 1,531 rows of MMLU, GSM8K across five folds."""
    rows = {s: [o for o in outcomes if o.source == f"routellm/{s}"] for s in ("mmlu", "gsm8k", "mt_bench")}
    parts = {source: examples_of(asked, ROUTELLM) for source, asked in rows.items()}
    gaps = {s: {m: np.full((seeds, len(p.types)), np.nan) for m in METHODS} for s, p in parts.items()}
    mmlu, gsm, bench = parts["mmlu"], parts["gsm8k"], parts["mt_bench"]
    for seed in range(seeds):
        chosen, other = split(mmlu.groups, 1 - MMLU_ROWS / len(mmlu.types), seed)
        train = examples_of([rows["mmlu"][i] for i in chosen[:MMLU_ROWS]], ROUTELLM)
        asked = mmlu.part(other)
        for method, rank in _both(seed).items():
            said = rank(train, [*asked.features, *bench.features])
            gaps["mmlu"][method][seed, other] = said[: len(other)]
            gaps["mt_bench"][method][seed] = said[len(other) :]
            for known, new in GroupKFold(5, shuffle=True, random_state=seed).split(gsm.scores, groups=gsm.groups):
                gaps["gsm8k"][method][seed, new] = rank(gsm.part(known), gsm.part(new).features)
    return {s: Ranked(gaps[s], None, p.scores, None, p.groups) for s, p in parts.items()}


def _both(seed: int) -> dict[str, Callable[[Examples, Sequence[Features]], np.ndarray]]:
    return {"router": lambda train, asked: router(train, asked, ROUTELLM, seed), "yardstick": yardstick}


def table(ranked: Ranked, rounds: int, dollars: bool = True) -> dict[str, Any]:
    """Every measure of every method with its interval, and of the router the difference to the yardstick."""
    measures: dict[str, Callable[[str, np.ndarray], float]] = {
        "apgr": lambda method, rows: _mean(apgr, ranked.gaps[method], rows, ranked.scores),
        "cpt50": lambda method, rows: _mean(lambda g, s: cpt(g, s, 0.5), ranked.gaps[method], rows, ranked.scores),
        "cpt80": lambda method, rows: _mean(lambda g, s: cpt(g, s, 0.8), ranked.gaps[method], rows, ranked.scores),
    }
    costs, per_usd = ranked.costs_usd, ranked.per_usd
    if costs is not None and per_usd is not None and dollars:
        for kept in KEPT:
            measures[f"saved{kept * 100:.0f}"] = lambda method, rows, kept=kept: _mean(
                lambda g, s, c: saved_cost(g, s, c, kept), per_usd[method], rows, ranked.scores, costs
            )
    return {"n": len(ranked.scores), **{name: _compared(f, ranked.groups, rounds) for name, f in measures.items()}}


def _compared(
    measured: Callable[[str, np.ndarray], float], groups: np.ndarray, rounds: int
) -> dict[str, tuple[float, float, float]]:
    """A measure of each method, and the paired difference, with intervals."""
    each = {m: bootstrap(lambda rows, m=m: measured(m, rows), groups, rounds, 0) for m in METHODS}
    difference = bootstrap(lambda rows: measured("router", rows) - measured("yardstick", rows), groups, rounds, 0)
    return {**each, "difference": difference}


def _mean(measure: Callable[..., float], ranks: np.ndarray, rows: np.ndarray, *tables: np.ndarray) -> float:
    """The mean over seeds, each on those of the rows that it did not learn from."""
    values = []
    for of_seed in ranks:
        new = rows[~np.isnan(of_seed[rows])]
        values.append(measure(of_seed[new], *(t[new] for t in tables)))
    return float(np.mean(values))


def measure(data: Path, seeds: int, rounds: int) -> dict[str, Any]:
    """All tables, and the pooled curves of the pair for a plot."""
    calibration, test = (read_outcomes([data / f"{name}.jsonl.gz"], PAIR) for name in ("calibration", "test"))
    pair = gpt4o_pair(calibration, test, seeds)
    types = np.array([outcome.question_type or "unknown" for outcome in test])
    names = [t for t, count in zip(*np.unique(types, return_counts=True), strict=True) if count >= MIN_TYPE_ROWS]
    left_out = contaminated(data)
    clean = [o for o in read_outcomes([data / "routellm.jsonl.gz"], ROUTELLM) if o.id not in left_out]
    return {
        "pair": table(pair, rounds),
        "by_type": {str(t): table(pair.part(np.flatnonzero(types == t)), rounds, dollars=False) for t in names},
        "routellm": {source: table(ranked, rounds) for source, ranked in routellm(clean, seeds).items()},
        "curves": {method: curve(pair, method) for method in METHODS},
    }


def contaminated(data: Path) -> set[str]:
    """Ids of the questions that RouteLLM found in its own training data."""
    with gzip.open(data / "routellm.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = (json.loads(line) for line in lines)
        return {row["id"] for row in rows if row.get("contaminated")}


def curve(ranked: Ranked, method: str, points: int = 101) -> list[tuple[float, float]]:
    """(share of dollars saved, share of quality kept) as more goes to the cheap model, for the first seed."""
    assert ranked.per_usd is not None and ranked.costs_usd is not None
    order = np.argsort(-ranked.per_usd[method][0], kind="stable")
    steps = np.linspace(0, len(order), points).astype(int)
    gain, extra = (
        np.concatenate([[0.0], np.cumsum((t[:, 1] - t[:, 0])[order])])[steps] for t in (ranked.scores, ranked.costs_usd)
    )
    kept = (ranked.scores[:, 0].sum() + gain) / ranked.scores[:, 1].sum()
    saved = 1 - (ranked.costs_usd[:, 0].sum() + extra) / ranked.costs_usd[:, 1].sum()
    return [(float(s), float(k)) for s, k in zip(saved, kept, strict=True)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=200, help="of the bootstrap")
    parser.add_argument("--out", type=Path, help="where the tables go as JSON")
    arguments = parser.parse_args()
    if not (arguments.data / "test.jsonl.gz").is_file():
        print(f"skipped: the recorded outcomes ({arguments.data}) are not here")
        return 0
    results = measure(arguments.data, arguments.seeds, arguments.rounds)
    print(json.dumps({k: v for k, v in results.items() if k != "curves"}, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

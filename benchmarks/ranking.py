"""Measures how well requests are ranked for escalation, against a baseline and RouteLLM's published figures.

    python benchmarks/ranking.py ../shared/data [--seeds 3] [--rounds 200] [--out FILE]

The baseline is what an afternoon with scikit-learn gives: a ridge on word TF-IDF and hand features, averaged with the
means of the predicted question type. Both learn from the same rows, without any published results. APGR and CPT are
RouteLLM's (Ong et al. 2024). They rank by the gap in quality that is expected of the strong model. Dollars saved rank
by quality per dollar, as the router decides, with the threshold chosen in hindsight; the baseline has the router's
dollars and guards. Intervals are a bootstrap over near-duplicate groups of the mean over seeds; differences are paired.
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

from calibration.learning.duplicates import near_duplicate_groups
from calibration.learning.examples import Examples, Question, question_of
from calibration.learning.intervals import bootstrap
from calibration.learning.learning import build_examples, learn
from calibration.learning.predictor import fit
from calibration.learning.ranking import apgr, cpt, saved_cost
from calibration.learning.replay import Replay, replay_outcomes
from calibration.outcomes import Outcome, read_outcomes
from calibration.policies import load_prices, models_named
from router.policy.expected_cost import savings_usd
from router.policy.features import Features
from router.policy.inputs import terms
from router.policy.prediction import predict
from router.policy.rules import Rules

PAIR = ("gpt-4o-mini", "gpt-4o")
ROUTELLM = ("mixtral-8x7b", "gpt-4-1106-preview")
MMLU_ROWS = 1531  # labelled questions of RouteLLM's routers in the same table
TARGET = 0.97  # the router ranks by quality per dollar with the guards of this target
MIN_TYPE_ROWS = 60
METHODS = ("router", "baseline")
KEPT = (0.95, 0.97, 0.99)


@dataclass(frozen=True, slots=True)
class Ranked:
    """The ranks of n questions by method and seed; NaN for training questions."""

    gaps: dict[str, np.ndarray]  # method -> (seeds, n)
    per_usd: dict[str, np.ndarray] | None  # infinite where a guard sends the question to the strong model
    scores: np.ndarray  # (n, 2)
    costs_usd: np.ndarray | None
    groups: np.ndarray

    def part(self, rows: np.ndarray) -> Ranked:
        """The ranks of some questions."""

        def cut(ranks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {method: values[:, rows] for method, values in ranks.items()}

        costs = None if self.costs_usd is None else self.costs_usd[rows]
        per_usd = None if self.per_usd is None else cut(self.per_usd)
        return Ranked(cut(self.gaps), per_usd, self.scores[rows], costs, self.groups[rows])


def baseline(train: Examples, questions: Sequence[Features]) -> np.ndarray:
    """The expected gap of each question by the baseline (n,)."""

    def text(questions: Sequence[Question]) -> list[str]:
        return [question.asked.question for question in questions]

    tfidf = TfidfVectorizer(analyzer=terms, min_df=3, sublinear_tf=True).fit(text(train.questions))
    scale = StandardScaler().fit([question.numbers for question in train.questions])

    def inputs(questions: Sequence[Question]) -> sp.csr_matrix:
        scaled = np.clip(scale.transform([question.numbers for question in questions]), -4, 4) * 0.2
        return sp.csr_matrix(sp.hstack([tfidf.transform(text(questions)), scaled]))

    known_inputs, new_inputs = inputs(train.questions), inputs([question_of(features) for features in questions])
    types = np.array(train.types)
    several = len(set(train.types)) > 1
    classifier = (LogisticRegression(C=10, max_iter=300) if several else DummyClassifier()).fit(known_inputs, types)
    overall = train.scores.mean(axis=0)
    means = [
        (train.scores[types == t].sum(axis=0) + 20 * overall) / ((types == t).sum() + 20) for t in np.unique(types)
    ]
    quality = (
        Ridge(10).fit(known_inputs, train.scores).predict(new_inputs)
        + classifier.predict_proba(new_inputs) @ np.array(means)
    ) / 2
    return np.asarray(quality[:, 1] - quality[:, 0])


def router(train: Examples, questions: Sequence[Features], models: Sequence[str]) -> np.ndarray:
    """The expected gap of each question by the router's predictor (n,)."""
    predictor = fit(train, models)
    predictions = [predict(predictor, features) for features in questions]
    return np.array([prediction.quality[models[1]] - prediction.quality[models[0]] for prediction in predictions])


def gpt4o_pair(calibration: Sequence[Outcome], test: Sequence[Outcome], seeds: int) -> Ranked:
    """Learn from all calibration questions, rank the test questions; the seed draws the folds of the guards."""
    models = models_named(PAIR, load_prices())
    gaps: dict[str, list[np.ndarray]] = {method: [] for method in METHODS}
    per_usd: dict[str, list[np.ndarray]] = {method: [] for method in METHODS}
    baseline_gaps: np.ndarray | None = None
    for seed in range(seeds):
        policy = learn(calibration, models, seed, {}, targets=(TARGET,)).policy
        replay = replay_outcomes(test, policy.predictor, models)
        baseline_gaps = (
            baseline(build_examples(calibration, PAIR), replay.features) if baseline_gaps is None else baseline_gaps
        )
        needed = replay.switch_thresholds(policy.rules, TARGET)
        baseline_per_usd = np.where(np.isinf(needed), needed, baseline_gaps / dollars_saved(policy.rules, replay))
        for method, gap, rank in (("router", replay.gaps, needed), ("baseline", baseline_gaps, baseline_per_usd)):
            gaps[method].append(gap)
            per_usd[method].append(rank)
    groups = near_duplicate_groups([outcome.text for outcome in test])
    return Ranked(_stacked(gaps), _stacked(per_usd), replay.scores, replay.costs_usd, groups)


def dollars_saved(rules: Rules, replay: Replay) -> np.ndarray:
    """What the router expects the cheap model to save on each question (n,)."""
    cheap = replay.models[0].name
    rows = zip(replay.features, replay.predictions, strict=True)
    return np.maximum([savings_usd(rules, features, prediction, None)[cheap] for features, prediction in rows], 1e-12)


def draw_rows(groups: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """At least `n` rows to learn from, in whole groups of near-duplicates, and all others."""
    names, sizes = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    enough = int(np.searchsorted(np.cumsum(sizes[order]), n)) + 1
    is_drawn = np.isin(groups, names[order[:enough]])
    return np.flatnonzero(is_drawn), np.flatnonzero(~is_drawn)


def _stacked(ranks: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    return {method: np.array(values) for method, values in ranks.items()}


def routellm(outcomes: Sequence[Outcome], seeds: int) -> dict[str, Ranked]:
    """RouteLLM's pair on its three benchmarks: MMLU and MT-Bench from 1,531 rows of MMLU, GSM8K across five folds."""
    rows = {
        s: [outcome for outcome in outcomes if outcome.source == f"routellm/{s}"] for s in ("mmlu", "gsm8k", "mt_bench")
    }
    parts = {source: build_examples(rows_of_source, ROUTELLM) for source, rows_of_source in rows.items()}
    gaps = {s: {m: np.full((seeds, len(p.types)), np.nan) for m in METHODS} for s, p in parts.items()}
    mmlu, gsm, bench = parts["mmlu"], parts["gsm8k"], parts["mt_bench"]
    for seed in range(seeds):
        drawn_rows, other_rows = draw_rows(mmlu.groups, MMLU_ROWS, seed)
        train = build_examples([rows["mmlu"][i] for i in drawn_rows[:MMLU_ROWS]], ROUTELLM)
        rows_of_source = mmlu.subset(other_rows)
        for method, rank in BOTH.items():
            ranks_given = rank(train, [*rows_of_source.features, *bench.features])
            gaps["mmlu"][method][seed, other_rows] = ranks_given[: len(other_rows)]
            gaps["mt_bench"][method][seed] = ranks_given[len(other_rows) :]
            for train_rows, test_rows in GroupKFold(5, shuffle=True, random_state=seed).split(
                gsm.scores, groups=gsm.groups
            ):
                gaps["gsm8k"][method][seed, test_rows] = rank(gsm.subset(train_rows), gsm.subset(test_rows).features)
    return {s: Ranked(gaps[s], None, p.scores, None, p.groups) for s, p in parts.items()}


BOTH: dict[str, Callable[[Examples, Sequence[Features]], np.ndarray]] = {
    "router": lambda train, asked: router(train, asked, ROUTELLM),
    "baseline": baseline,
}


def table(ranked: Ranked, rounds: int, only: str = "") -> dict[str, Any]:
    """Every measure, or one, of every method with its interval, and the router's difference to the baseline."""
    measures: dict[str, Callable[[str, np.ndarray], float]] = {
        "apgr": lambda method, rows: _mean(apgr, ranked.gaps[method], rows, ranked.scores),
        "cpt50": lambda method, rows: _mean(lambda g, s: cpt(g, s, 0.5), ranked.gaps[method], rows, ranked.scores),
        "cpt80": lambda method, rows: _mean(lambda g, s: cpt(g, s, 0.8), ranked.gaps[method], rows, ranked.scores),
    }
    costs, per_usd = ranked.costs_usd, ranked.per_usd
    if costs is not None and per_usd is not None:
        for quality_kept in KEPT:
            measures[f"saved{quality_kept * 100:.0f}"] = lambda method, rows, quality_kept=quality_kept: _mean(
                lambda g, s, c: saved_cost(g, s, c, quality_kept), per_usd[method], rows, ranked.scores, costs
            )
    selected = {name: compute for name, compute in measures.items() if only in ("", name)}
    return {
        "n": len(ranked.scores),
        **{name: _compare(compute, ranked.groups, rounds) for name, compute in selected.items()},
    }


def _compare(
    measured: Callable[[str, np.ndarray], float], groups: np.ndarray, rounds: int
) -> dict[str, tuple[float, float, float]]:
    """A measure of each method, and the paired difference, with intervals."""
    intervals = {m: bootstrap(lambda rows, m=m: measured(m, rows), groups, rounds, 0) for m in METHODS}
    difference = bootstrap(lambda rows: measured("router", rows) - measured("baseline", rows), groups, rounds, 0)
    return {**intervals, "difference": difference}


def _mean(measure: Callable[..., float], ranks: np.ndarray, rows: np.ndarray, *tables: np.ndarray) -> float:
    """The mean over seeds, each on those of the rows that it did not learn from."""
    values = []
    for of_seed in ranks:
        test_rows = rows[~np.isnan(of_seed[rows])]
        values.append(measure(of_seed[test_rows], *(t[test_rows] for t in tables)))
    return float(np.mean(values))


def measure(data: Path, seeds: int, rounds: int) -> dict[str, Any]:
    """All tables, and the pooled curves of the pair for a plot."""
    calibration, test = (read_outcomes([data / f"{name}.jsonl.gz"], PAIR) for name in ("calibration", "test"))
    pair = gpt4o_pair(calibration, test, seeds)
    types = np.array([outcome.question_type or "unknown" for outcome in test])
    names = [t for t in np.unique(types) if (types == t).sum() >= MIN_TYPE_ROWS]
    names = [t for t in names if np.ptp(pair.scores[types == t], axis=1).any()]  # else there is nothing to rank
    left_out = contaminated(data)
    clean = [o for o in read_outcomes([data / "routellm.jsonl.gz"], ROUTELLM) if o.id not in left_out]
    return {
        "pair": table(pair, rounds),
        "by_type": {str(t): table(pair.part(np.flatnonzero(types == t)), rounds, "apgr") for t in names},
        "routellm": {source: table(ranked, rounds) for source, ranked in routellm(clean, seeds).items()},
        "curves": {method: curve(pair, method) for method in METHODS},
    }


def contaminated(data: Path) -> set[str]:
    """Ids of the questions that RouteLLM found in its own training data."""
    with gzip.open(data / "routellm.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = (json.loads(line) for line in lines)
        return {row["id"] for row in rows if row.get("contaminated")}


def curve(ranked: Ranked, method: str, points: int = 101) -> list[tuple[float, float]]:
    """(share of dollars saved, share of quality kept) by the share sent to the strong model, for the first seed."""
    assert ranked.per_usd is not None and ranked.costs_usd is not None
    order = np.argsort(-ranked.per_usd[method][0], kind="stable")
    steps = np.linspace(0, len(order), points).astype(int)
    gain, extra = (
        np.concatenate([[0.0], np.cumsum((t[:, 1] - t[:, 0])[order])])[steps] for t in (ranked.scores, ranked.costs_usd)
    )
    quality_kept = (ranked.scores[:, 0].sum() + gain) / ranked.scores[:, 1].sum()
    saved = 1 - (ranked.costs_usd[:, 0].sum() + extra) / ranked.costs_usd[:, 1].sum()
    return [(float(s), float(k)) for s, k in zip(saved, quality_kept, strict=True)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=200, help="of the bootstrap")
    parser.add_argument("--out", type=Path, help="file for the tables as JSON")
    arguments = parser.parse_args()
    if not (arguments.data / "test.jsonl.gz").is_file():
        print(f"skipped: the recorded outcomes ({arguments.data}) are not here")
        return 0
    results = measure(arguments.data, arguments.seeds, arguments.rounds)
    print(json.dumps({name: value for name, value in results.items() if name != "curves"}, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

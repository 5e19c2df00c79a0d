"""How well requests are ranked for escalation, against a plain yardstick and against RouteLLM's published figures.

    python benchmarks/ranking.py ../shared/data [--seeds 3] [--rounds 200] [--out FILE]

The yardstick is what an afternoon with scikit-learn gives: a ridge on word TF-IDF and hand features, averaged with the
means of the predicted question type. Both learn from the same rows, without any published results. APGR and CPT are
RouteLLM's (Ong et al. 2024). They rank by the gap in quality that is expected of the strong model. Dollars saved rank
by quality per dollar, as the router decides, with the threshold chosen in hindsight; the yardstick has the router's
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
MMLU_ROWS = 1531  # labelled questions that RouteLLM's routers of the same table had
TARGET = 0.97  # by whose guards the router ranks questions by quality per dollar
MIN_TYPE_ROWS = 60
METHODS = ("router", "yardstick")
KEPT = (0.95, 0.97, 0.99)


@dataclass(frozen=True, slots=True)
class Ranked:
    """What the methods said of n questions over some seeds; NaN where a question was learnt from."""

    gaps: dict[str, np.ndarray]  # method -> (seeds, n)
    per_usd: dict[str, np.ndarray] | None  # infinite where a guard sends the question to the strong model
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

    def text(questions: Sequence[Question]) -> list[str]:
        return [question.asked.question for question in questions]

    tfidf = TfidfVectorizer(analyzer=terms, min_df=3, sublinear_tf=True).fit(text(train.questions))
    scale = StandardScaler().fit([question.numbers for question in train.questions])

    def inputs(questions: Sequence[Question]) -> sp.csr_matrix:
        scaled = np.clip(scale.transform([question.numbers for question in questions]), -4, 4) * 0.2
        return sp.csr_matrix(sp.hstack([tfidf.transform(text(questions)), scaled]))

    known, new = inputs(train.questions), inputs([question_of(features) for features in asked])
    types = np.array(train.types)
    several = len(set(train.types)) > 1
    classifier = (LogisticRegression(C=10, max_iter=300) if several else DummyClassifier()).fit(known, types)
    overall = train.scores.mean(axis=0)
    means = [
        (train.scores[types == t].sum(axis=0) + 20 * overall) / ((types == t).sum() + 20) for t in np.unique(types)
    ]
    quality = (Ridge(10).fit(known, train.scores).predict(new) + classifier.predict_proba(new) @ np.array(means)) / 2
    return np.asarray(quality[:, 1] - quality[:, 0])


def router(train: Examples, asked: Sequence[Features], models: Sequence[str]) -> np.ndarray:
    """The gap that the router's predictor expects of each question asked (n,)."""
    predictor = fit(train, models)
    predictions = [predict(predictor, features) for features in asked]
    return np.array([p.quality[models[1]] - p.quality[models[0]] for p in predictions])


def gpt4o_pair(calibration: Sequence[Outcome], test: Sequence[Outcome], seeds: int) -> Ranked:
    """Learn from all calibration questions, rank the test questions; the seed draws the folds of the guards."""
    models = models_named(PAIR, load_prices())
    gaps: dict[str, list[np.ndarray]] = {method: [] for method in METHODS}
    per_usd: dict[str, list[np.ndarray]] = {method: [] for method in METHODS}
    plain: np.ndarray | None = None
    for seed in range(seeds):
        policy = learn(calibration, models, seed, {}, targets=(TARGET,)).policy
        replay = replay_outcomes(test, policy.predictor, models)
        plain = yardstick(build_examples(calibration, PAIR), replay.features) if plain is None else plain
        needed = replay.switch_thresholds(policy.rules, TARGET)
        plainly = np.where(np.isinf(needed), needed, plain / dollars_saved(policy.rules, replay))
        for method, gap, rank in (("router", replay.gaps, needed), ("yardstick", plain, plainly)):
            gaps[method].append(gap)
            per_usd[method].append(rank)
    groups = near_duplicate_groups([outcome.text for outcome in test])
    return Ranked(_stacked(gaps), _stacked(per_usd), replay.scores, replay.costs_usd, groups)


def dollars_saved(rules: Rules, replay: Replay) -> np.ndarray:
    """What the router expects the cheap model to save on each question (n,)."""
    cheap = replay.models[0].name
    rows = zip(replay.features, replay.predictions, strict=True)
    return np.maximum([savings_usd(rules, f, p, None)[cheap] for f, p in rows], 1e-12)


def drawn(groups: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
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
    parts = {source: build_examples(asked, ROUTELLM) for source, asked in rows.items()}
    gaps = {s: {m: np.full((seeds, len(p.types)), np.nan) for m in METHODS} for s, p in parts.items()}
    mmlu, gsm, bench = parts["mmlu"], parts["gsm8k"], parts["mt_bench"]
    for seed in range(seeds):
        chosen, other = drawn(mmlu.groups, MMLU_ROWS, seed)
        train = build_examples([rows["mmlu"][i] for i in chosen[:MMLU_ROWS]], ROUTELLM)
        asked = mmlu.subset(other)
        for method, rank in BOTH.items():
            said = rank(train, [*asked.features, *bench.features])
            gaps["mmlu"][method][seed, other] = said[: len(other)]
            gaps["mt_bench"][method][seed] = said[len(other) :]
            for known, new in GroupKFold(5, shuffle=True, random_state=seed).split(gsm.scores, groups=gsm.groups):
                gaps["gsm8k"][method][seed, new] = rank(gsm.subset(known), gsm.subset(new).features)
    return {s: Ranked(gaps[s], None, p.scores, None, p.groups) for s, p in parts.items()}


BOTH: dict[str, Callable[[Examples, Sequence[Features]], np.ndarray]] = {
    "router": lambda train, asked: router(train, asked, ROUTELLM),
    "yardstick": yardstick,
}


def table(ranked: Ranked, rounds: int, only: str = "") -> dict[str, Any]:
    """Every measure of every method with its interval, or one, and of the router the difference to the yardstick."""
    measures: dict[str, Callable[[str, np.ndarray], float]] = {
        "apgr": lambda method, rows: _mean(apgr, ranked.gaps[method], rows, ranked.scores),
        "cpt50": lambda method, rows: _mean(lambda g, s: cpt(g, s, 0.5), ranked.gaps[method], rows, ranked.scores),
        "cpt80": lambda method, rows: _mean(lambda g, s: cpt(g, s, 0.8), ranked.gaps[method], rows, ranked.scores),
    }
    costs, per_usd = ranked.costs_usd, ranked.per_usd
    if costs is not None and per_usd is not None:
        for kept in KEPT:
            measures[f"saved{kept * 100:.0f}"] = lambda method, rows, kept=kept: _mean(
                lambda g, s, c: saved_cost(g, s, c, kept), per_usd[method], rows, ranked.scores, costs
            )
    asked = {name: f for name, f in measures.items() if only in ("", name)}
    return {"n": len(ranked.scores), **{name: _compared(f, ranked.groups, rounds) for name, f in asked.items()}}


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
    """(share of dollars saved, share of quality kept) as more goes to the strong model, for the first seed."""
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
    print(json.dumps({name: value for name, value in results.items() if name != "curves"}, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

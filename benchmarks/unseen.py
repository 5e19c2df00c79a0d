"""What a policy does with kinds of question that it never saw: leave one source, or one question type, out of learning.

    python benchmarks/unseen.py ../shared/data/calibration.jsonl.gz [--by question_type] [--seeds 3] [--out FILE]

For each left-out kind a policy is learnt from the rest and asked to keep 97 % of the strong model's quality on the kind
that it never saw. Prints a row for each, the share of trials that kept the target, and what the caution cost. With
`--texts-stay` the typed requests of a left-out type stay: what it looks like is known, how models do on it is not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from calibration.learning.learning import LearningError, learn
from calibration.learning.prior import Prior, read_prior
from calibration.learning.replay import pick_columns, replay_outcomes
from calibration.outcomes import Outcome, read_outcomes
from calibration.policies import DATA, TYPED_QUESTIONS, load_prices, models_named
from router.policy.document import Policy
from router.policy.prices import Price
from router.policy.rules import Model

TARGET = 0.97
LINE = (
    "{left_out:34} seed {seed} n {n:5} kept {kept:.3f} ± {standard_error:.3f} (always cheap {always_cheap_keeps:.3f}) "
    "saved {saved:.2f} {reasons} {types}"
)
MIN_QUESTIONS = 30  # a kind with fewer is too small to tell 97 % from 100 %


def without(background: Prior, name: str) -> Prior:
    """What is known beside the outcomes, with nothing left of the type `name`."""
    examples = background.examples
    rows = [i for i, t in enumerate(examples.types) if t != name]
    fewer = replace(
        examples,
        features=examples.features.at(rows),
        types=[examples.types[i] for i in rows],
        quality={t: q for t, q in examples.quality.items() if t != name},
    )
    return replace(background, examples=fewer, evidence={t: e for t, e in background.evidence.items() if t != name})


def trial(policy: Policy, unseen: list[Outcome]) -> dict[str, object]:
    """What the policy kept and saved on questions it never saw, and why they went where they went."""
    replay = replay_outcomes(unseen, policy.predictor, policy.rules.models)
    decisions = replay.decisions(policy.rules, TARGET)
    chosen = np.array([[model.name for model in policy.rules.models].index(d.model) for d in decisions])
    scores, costs = pick_columns(replay.scores, chosen), pick_columns(replay.costs_usd, chosen)
    strong = max(float(replay.scores[:, -1].sum()), 1e-9)
    kept = float(scores.sum()) / strong
    return {
        "n": len(unseen),
        "kept": kept,
        "standard_error": float((scores - kept * replay.scores[:, -1]).std() * len(scores) ** 0.5 / strong),
        "always_cheap_keeps": float(replay.scores[:, 0].sum()) / strong,
        "saved": float(1 - costs.sum() / replay.costs_usd[:, -1].sum()),
        "cheap_calls": float((chosen == 0).mean()),
        "reasons": dict(Counter(str(d.reason) for d in decisions)),
        "types": dict(Counter(d.question_type for d in decisions).most_common(3)),
    }


def models_of(names: list[str]) -> tuple[Model, ...]:
    """The models with their prices; a pair that OpenAI no longer lists costs as gpt-4o-mini and gpt-4o do."""
    book = load_prices()
    stand_in = {"mixtral-8x7b": Price(0.6, 0.6), "gpt-4-1106-preview": Price(10.0, 30.0)}
    return tuple(Model(n, stand_in[n]) if n in stand_in else models_named([n], book)[0] for n in names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outcomes", type=Path)
    parser.add_argument("--models", default="gpt-4o-mini,gpt-4o")
    parser.add_argument("--by", choices=("source", "question_type"), default="source")
    parser.add_argument("--only", action="append", help="leave out this kind and no other; repeatable")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--texts-stay", action="store_true", help="leave out a type's outcomes, not its typed requests")
    parser.add_argument(
        "--published", type=Path, help="published results: learn with the background of the shipped policy"
    )
    parser.add_argument("--sample", type=int, help="learn from so many outcomes only, drawn by seed")
    parser.add_argument("--out", type=Path, help="where the rows go as JSON lines")
    arguments = parser.parse_args()
    if not arguments.outcomes.is_file():
        print(f"skipped: {arguments.outcomes} is not here")
        return 0
    names = arguments.models.split(",")
    outcomes = read_outcomes([arguments.outcomes], names)
    background = Prior()
    if arguments.published:
        background = read_prior(TYPED_QUESTIONS, DATA / "types.json", arguments.published, names)
    outcomes = background.rename_types(outcomes)
    kinds = Counter(getattr(outcome, arguments.by) or "unknown" for outcome in outcomes)
    forgotten = arguments.by == "question_type" and not arguments.texts_stay
    rows = []
    for seed in range(arguments.seeds):
        for kind in sorted(k for k, n in kinds.items() if n >= MIN_QUESTIONS and k in (arguments.only or kinds)):
            unseen = [o for o in outcomes if getattr(o, arguments.by) == kind]
            seen = [o for o in outcomes if getattr(o, arguments.by) != kind]
            if arguments.sample and arguments.sample < len(seen):
                drawn = np.random.default_rng(seed).permutation(len(seen))[: arguments.sample]
                seen = [seen[i] for i in drawn]
            try:
                known = without(background, kind) if forgotten else background
                policy = learn(seen, models_of(names), seed, {}, known, (TARGET,)).policy
            except LearningError as error:
                print(f"{kind}: {error}", file=sys.stderr)
                continue
            row = {"left_out": kind, "seed": seed, **trial(policy, unseen)}
            rows.append(row)
            print(LINE.format(**row), flush=True)
    kept = np.array([row["kept"] for row in rows])
    cheap = np.array([row["always_cheap_keeps"] for row in rows])
    saved = np.mean([row["saved"] for row in rows])
    print(f"{(kept >= TARGET).mean():.1%} of {len(kept)} trials kept {TARGET:.0%}; always cheap would have in", end=" ")
    print(f"{(cheap >= TARGET).mean():.1%}; saved {saved:.1%} of the dollars on what was left out")
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

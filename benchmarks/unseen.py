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
    rows = [i for i, question_type in enumerate(examples.types) if question_type != name]
    fewer = replace(
        examples,
        features=examples.features.at(rows),
        types=[examples.types[i] for i in rows],
        quality={
            question_type: type_quality
            for question_type, type_quality in examples.quality.items()
            if question_type != name
        },
    )
    return replace(
        background,
        examples=fewer,
        evidence={
            question_type: type_evidence
            for question_type, type_evidence in background.evidence.items()
            if question_type != name
        },
    )


def trial(policy: Policy, unseen: list[Outcome]) -> dict[str, object]:
    """What the policy kept and saved on questions it never saw, and why they went where they went."""
    replay = replay_outcomes(unseen, policy.predictor, policy.rules.models)
    decisions = replay.decisions(policy.rules, TARGET)
    choices = np.array([[model.name for model in policy.rules.models].index(decision.model) for decision in decisions])
    scores, costs = pick_columns(replay.scores, choices), pick_columns(replay.costs_usd, choices)
    strong = max(float(replay.scores[:, -1].sum()), 1e-9)
    quality_kept = float(scores.sum()) / strong
    return {
        "n": len(unseen),
        "kept": quality_kept,
        "standard_error": float((scores - quality_kept * replay.scores[:, -1]).std() * len(scores) ** 0.5 / strong),
        "always_cheap_keeps": float(replay.scores[:, 0].sum()) / strong,
        "saved": float(1 - costs.sum() / replay.costs_usd[:, -1].sum()),
        "cheap_calls": float((choices == 0).mean()),
        "reasons": dict(Counter(str(decision.reason) for decision in decisions)),
        "types": dict(Counter(decision.question_type for decision in decisions).most_common(3)),
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
    forget_type = arguments.by == "question_type" and not arguments.texts_stay
    rows = []
    for seed in range(arguments.seeds):
        for kind in sorted(
            kind_name for kind_name, n in kinds.items() if n >= MIN_QUESTIONS and kind_name in (arguments.only or kinds)
        ):
            unseen = [outcome for outcome in outcomes if getattr(outcome, arguments.by) == kind]
            seen = [outcome for outcome in outcomes if getattr(outcome, arguments.by) != kind]
            if arguments.sample and arguments.sample < len(seen):
                drawn_rows = np.random.default_rng(seed).permutation(len(seen))[: arguments.sample]
                seen = [seen[i] for i in drawn_rows]
            try:
                reduced_prior = without(background, kind) if forget_type else background
                policy = learn(seen, models_of(names), seed, {}, reduced_prior, (TARGET,)).policy
            except LearningError as error:
                print(f"{kind}: {error}", file=sys.stderr)
                continue
            row = {"left_out": kind, "seed": seed, **trial(policy, unseen)}
            rows.append(row)
            print(LINE.format(**row), flush=True)
    quality_kept = np.array([row["kept"] for row in rows])
    cheap = np.array([row["always_cheap_keeps"] for row in rows])
    saved = np.mean([row["saved"] for row in rows])
    print(
        f"{(quality_kept >= TARGET).mean():.1%} of {len(quality_kept)} trials kept {TARGET:.0%};",
        "always cheap would have in",
        end=" ",
    )
    print(f"{(cheap >= TARGET).mean():.1%}; saved {saved:.1%} of the dollars on what was left out")
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

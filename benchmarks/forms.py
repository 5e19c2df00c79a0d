"""Does the form of a request change where it goes? Recorded questions in the forms in which clients send them.

    python benchmarks/forms.py ../shared/forms/forms.py ../shared/data/test.jsonl.gz [--policy data/policy] [--rows 800]

The first file is a Python module beside the project. Its `FORMS` gives for each name a function that turns a row with
`messages` and `tools` into the same question in another form. The policy decides at 97 % on each form; the recorded
outcomes of the bare question stand for those of its forms.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from calibration.learning.replay import pick_columns, replay_outcomes
from calibration.outcomes import Outcome, read_outcomes
from calibration.policies import DATA, read_policy
from router.policy.decision import decide
from router.policy.document import Policy
from router.policy.features import read_question
from router.policy.prediction import predict

TARGET = 0.97
ROWS = 800
Row = Mapping[str, Any]
Form = Callable[[Row], Row]


def read_forms(path: Path) -> dict[str, Form]:
    """The forms of a module, by name."""
    spec = importlib.util.spec_from_file_location("forms_of_clients", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: form for name, (form, _) in module.FORMS.items()}


def measure(policy: Policy, outcomes: list[Outcome], forms: Mapping[str, Form], count: int = ROWS) -> list[Row]:
    """A row for each form: what is decided on it, and what of the bare questions' decisions is left."""
    sample = random.Random(0).sample(outcomes, min(count, len(outcomes)))
    replay = replay_outcomes(sample, policy.predictor, policy.rules.models)
    bare = replay.choose(policy.rules, TARGET)
    column = {model.name: index for index, model in enumerate(replay.models)}
    saved_bare = 1 - pick_columns(replay.costs_usd, bare).sum() / replay.costs_usd[:, -1].sum()
    rows: list[Row] = []
    for name, form in forms.items():
        choices = np.array([column[_model(policy, form(_request(outcome)))] for outcome in sample])
        quality_kept, cost_share = (
            pick_columns(t, choices).sum() / t[:, -1].sum() for t in (replay.scores, replay.costs_usd)
        )
        rows.append(
            {
                "form": name,
                "n": len(sample),
                "strong_calls": float((choices == len(column) - 1).mean()),
                "saved": float(1 - cost_share),
                "kept": float(quality_kept),
                "saving_left": float((1 - cost_share) / saved_bare) if saved_bare else 0.0,
                "flips": float((choices != bare).mean()),
            }
        )
    return rows


def _request(outcome: Outcome) -> Row:
    request: dict[str, Any] = {"id": outcome.id, "messages": [dict(message) for message in outcome.messages]}
    return {**request, "tools": list(outcome.tools)} if outcome.tools else request


def _model(policy: Policy, request: Row) -> str:
    features = read_question(request["messages"], request.get("tools"))
    return decide(policy.rules, features, predict(policy.predictor, features), TARGET).model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("forms", type=Path)
    parser.add_argument("outcomes", type=Path)
    parser.add_argument("--policy", type=Path, default=DATA / "policy")
    parser.add_argument("--rows", type=int, default=ROWS, help="questions drawn from the outcomes")
    arguments = parser.parse_args()
    for path in (arguments.forms, arguments.outcomes):
        if not path.is_file():
            print(f"skipped: {path} is not here")
            return 0
    policy = read_policy(arguments.policy)
    outcomes = read_outcomes([arguments.outcomes], [model.name for model in policy.rules.models])
    for row in measure(policy, outcomes, read_forms(arguments.forms), arguments.rows):
        print(
            "{form:42} strong {strong_calls:.3f} saved {saved:.3f} kept {kept:.3f} "
            "saving left {saving_left:.2f} flips {flips:.3f}".format(**row)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

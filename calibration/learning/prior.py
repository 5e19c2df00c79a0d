"""What is known beside the outcomes: questions that show what a type looks like, and results that others published.

`data/types.json` says how: `rename` gives recorded outcomes the type names of the question set, `published` names for a
type the published benchmarks that speak of it. A published result counts as at most PSEUDO_OUTCOMES outcomes, whatever
the size of the benchmark: it was measured on other questions than the users', and it is never certified.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from calibration.learning.corpus import Questions
from calibration.learning.examples import TypeExamples
from calibration.outcomes import InputError, Outcome, read_rows
from calibration.policies import TYPED, read_policy
from router.policy.decision import Evidence, Interval, Model
from router.policy.distribution import SHIPPED
from router.policy.document import Policy, PolicyError
from router.policy.features import RequestError, encode_question, read_body
from router.policy.transfer import transferred

PSEUDO_OUTCOMES = 30
_SPREAD = 0.42  # standard deviation of the paired difference of one question, as in the recorded outcomes
_KINDS = ("accuracy01", "score01", "f1", "judge01")  # on a scale from 0 to 1; an Elo rating is not


@dataclass(frozen=True, slots=True)
class Background:
    """What a policy may know of types that it has no outcomes of."""

    examples: TypeExamples = field(default_factory=TypeExamples)
    evidence: Mapping[str, Evidence] = field(default_factory=dict)  # by type
    rename: Sequence[Mapping[str, str]] = ()

    def renamed(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """The outcomes under the type names of the question set."""
        return [replace(outcome, question_type=self._type(outcome)) for outcome in outcomes]

    def _type(self, outcome: Outcome) -> str | None:
        for row in self.rename:
            if fnmatchcase(outcome.id, row.get("id", "*")) and fnmatchcase(
                outcome.question_type or "", row.get("question_type", "*")
            ):
                return row["as"]
        return outcome.question_type


def read_background(
    questions: Sequence[Path], types: Path, published: Path | None, models: Sequence[str]
) -> Background:
    """Read questions of every type, the table of types, and the published results of `models` (cheap to strong).

    Raises:
        InputError: a file does not fit; names it.
    """
    table = _json(types)
    rows = _by_benchmark(_json(published)) if published else {}
    evidence = {
        name: _evidence([_row(rows, benchmark, types) for benchmark in benchmarks], models)
        for name, benchmarks in table.get("published", {}).items()
        if rows
    }
    return _background(questions, evidence, models, table.get("rename", ()))


def _background(
    questions: Sequence[Path],
    evidence: Mapping[str, Evidence],
    models: Sequence[str],
    rename: Sequence[Mapping[str, str]] = (),
) -> Background:
    """Evidence by type, with the typed questions that show what each type looks like."""
    named = [row for path in questions for row in _typed(path)]
    quality = {name: [known.quality[m].estimate for m in models] for name, known in evidence.items()}
    examples = TypeExamples(Questions([row[0] for row in named]), [row[1] for row in named], quality)
    return Background(examples, evidence, rename)


def prior(about: Mapping[str, Any], models: Sequence[str]) -> Background | None:
    """What a calibration started from, as its policy tells; None where it started from nothing.

    Raises:
        PolicyError: the policy that it started from is not the one that is shipped with this version.
    """
    if "prior_evidence" in about:
        return transferred_background(about["prior_evidence"], models)
    version = about.get("prior")
    if version is None:
        return None
    shipped = read_policy(SHIPPED)
    if shipped.version != version:
        raise PolicyError(str(SHIPPED), f"is version {shipped.version}; the calibration started from {version}")
    return background_of(shipped, TYPED, models)


def background_of(policy: Policy, questions: Sequence[Path], models: Sequence[str]) -> Background:
    """What a policy knows that was learnt from other outcomes: what types look like, and what models are worth on them.

    What it knows of a type counts as at most PSEUDO_OUTCOMES outcomes, and is not certified for another calibration.
    Of other models than its own it knows nothing.

    Raises:
        InputError: a file of typed questions does not fit; names it.
    """
    evidence: dict[str, Evidence] = {}
    if list(models) == list(policy.predictor.models):
        evidence = {
            name: _of_policy(known, policy.version) for name, known in policy.rules.evidence.items() if known.n > 0
        }
    return _background(questions, evidence, models)


def transferred_background(evidence: Mapping[str, Any], models: Sequence[str]) -> Background:
    """What a policy for other models knows, as evidence that it was transferred into (`router.policy.transfer`)."""
    return _background(TYPED, msgspec.convert(evidence, dict[str, Evidence]), models)


def evidence_for(policy: Policy, models: Sequence[Model]) -> dict[str, Any]:
    """What a policy of two models knows, for another pair: at most PSEUDO_OUTCOMES outcomes a type, none certified.

    Raises:
        TransferError: the policy is of more models than two, or the pair saves nothing.
    """
    moved = transferred(policy, *models)
    known = {
        name: replace(each, kind="transferred", n=min(each.n, PSEUDO_OUTCOMES), output_tokens={})
        for name, each in moved.rules.evidence.items()
        if each.n > 0
    }
    found: dict[str, Any] = msgspec.to_builtins(known)
    return found


def _of_policy(known: Evidence, version: str) -> Evidence:
    source = known.source or f"{known.n} outcomes of policy {version}"
    return replace(known, kind="published", n=min(known.n, PSEUDO_OUTCOMES), source=source)


def _typed(path: Path) -> Iterator[tuple[bytes, str]]:
    """The questions of a file that have a type; nothing else is asked of a row than its type and what was said."""
    for line, row in read_rows(path):
        if not isinstance(row, Mapping) or not isinstance(row.get("question_type"), str):
            continue
        messages = row.get("messages") or [{"role": "user", "content": row.get("question", row.get("text"))}]
        try:
            body = encode_question(messages, row.get("tools"))
            read_body(body)
            yield body, row["question_type"]
        except RequestError as error:
            raise InputError(path, line, str(error)) from error


def _by_benchmark(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Results by the name of their benchmark, with the published type where it has several."""
    several = Counter(row["benchmark"] for row in rows)
    return {
        row["benchmark"] if several[row["benchmark"]] == 1 else f"{row['benchmark']}: {row['question_type']}": row
        for row in rows
    }


def _row(rows: Mapping[str, Any], benchmark: str, types: Path) -> Mapping[str, Any]:
    row: Mapping[str, Any] | None = rows.get(benchmark)
    if row is None or row.get("kind") not in _KINDS:
        raise InputError(types, None, f"no published result from 0 to 1 is known of benchmark {benchmark!r}")
    return row


def _evidence(rows: Sequence[Mapping[str, Any]], models: Sequence[str]) -> Evidence:
    """The mean of the published results, each as good as the others, with the interval of PSEUDO_OUTCOMES outcomes."""
    quality = {model: float(np.mean([row["scores"][model] for row in rows])) for model in models}
    difference = quality[models[0]] - quality[models[-1]]
    half = 1.96 * _SPREAD / PSEUDO_OUTCOMES**0.5
    return Evidence(
        kind="published",
        n=PSEUDO_OUTCOMES,
        quality={m: Interval(max(0.0, q - half), q, min(1.0, q + half)) for m, q in quality.items()},
        quality_difference=Interval(max(-1.0, difference - half), difference, min(1.0, difference + half)),
        output_tokens={},
        source="; ".join(f"{row['benchmark']} ({row['source']})" for row in rows),
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(path, None, f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(path, None, f"is not JSON: {error}") from error

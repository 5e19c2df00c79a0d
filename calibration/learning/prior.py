"""Prior knowledge for learning: typed questions without outcomes, and published results.

The format of `data/types.json`: `rename` maps recorded outcomes to the type names of the question set; `published` maps
a type to the published benchmarks that cover it. A published result counts as at most PSEUDO_OUTCOMES outcomes for any
size of the benchmark, because its questions are not those of the users. It is never certified.
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
from calibration.policies import TYPED_QUESTIONS, read_policy
from router.policy.distribution import SHIPPED
from router.policy.document import Policy, PolicyError
from router.policy.features import RequestError, encode_question, read_body
from router.policy.rules import Evidence, Interval, Model
from router.policy.transfer import transfer_policy

PSEUDO_OUTCOMES = 30
_SPREAD = 0.42  # standard deviation of the paired score difference of one question, in the recorded outcomes
_KINDS = ("accuracy01", "score01", "f1", "judge01")  # results from 0 to 1, unlike Elo ratings


@dataclass(frozen=True, slots=True)
class Prior:
    """Typed questions and evidence for types, also for types without outcomes."""

    examples: TypeExamples = field(default_factory=TypeExamples)
    evidence: Mapping[str, Evidence] = field(default_factory=dict)  # by type
    rename: Sequence[Mapping[str, str]] = ()

    def rename_types(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """The outcomes with the type names of the question set."""
        return [replace(outcome, question_type=self._type(outcome)) for outcome in outcomes]

    def _type(self, outcome: Outcome) -> str | None:
        for row in self.rename:
            if fnmatchcase(outcome.id, row.get("id", "*")) and fnmatchcase(
                outcome.question_type or "", row.get("question_type", "*")
            ):
                return row["as"]
        return outcome.question_type


def read_prior(questions: Sequence[Path], types: Path, published: Path | None, models: Sequence[str]) -> Prior:
    """Read typed questions, the table of types, and the published results of `models` (cheap to strong).

    Raises:
        InputError: a file cannot be read or has another format.
    """
    table = _read_json(types)
    rows = _index_by_benchmark(_read_json(published)) if published else {}
    evidence = {
        name: _published_evidence([_published_row(rows, benchmark, types) for benchmark in benchmarks], models)
        for name, benchmarks in table.get("published", {}).items()
        if rows
    }
    return _build_prior(questions, evidence, models, table.get("rename", ()))


def _build_prior(
    questions: Sequence[Path],
    evidence: Mapping[str, Evidence],
    models: Sequence[str],
    rename: Sequence[Mapping[str, str]] = (),
) -> Prior:
    """A prior from evidence by type and files of typed questions."""
    typed = [row for path in questions for row in _read_typed_questions(path)]
    quality = {name: [of_type.quality[m].estimate for m in models] for name, of_type in evidence.items()}
    examples = TypeExamples(Questions([body for body, _ in typed]), [name for _, name in typed], quality)
    return Prior(examples, evidence, rename)


def prior_of_run(about: Mapping[str, Any], models: Sequence[str]) -> Prior | None:
    """The prior of a calibration, from the metadata of its policy; None where it had none.

    Raises:
        PolicyError: the prior was a shipped policy of another version.
    """
    if "prior_evidence" in about:
        return transferred_prior(about["prior_evidence"], models)
    version = about.get("prior")
    if version is None:
        return None
    shipped = read_policy(SHIPPED)
    if shipped.version != version:
        raise PolicyError(
            str(SHIPPED), f"has version {shipped.version}, but the prior of the calibration had version {version}"
        )
    return prior_of_policy(shipped, TYPED_QUESTIONS, models)


def prior_of_policy(policy: Policy, questions: Sequence[Path], models: Sequence[str]) -> Prior:
    """A prior from a policy that was learnt from other outcomes.

    Its evidence on a type counts as at most PSEUDO_OUTCOMES outcomes, and is not certified for another calibration. For
    models other than the policy's there is no evidence.

    Raises:
        InputError: a file of typed questions cannot be read or has another format.
    """
    evidence: dict[str, Evidence] = {}
    if list(models) == list(policy.predictor.models):
        evidence = {
            name: _as_published(of_type, policy.version)
            for name, of_type in policy.rules.evidence.items()
            if of_type.n > 0
        }
    return _build_prior(questions, evidence, models)


def transferred_prior(evidence: Mapping[str, Any], models: Sequence[str]) -> Prior:
    """A prior from evidence that was transferred from a policy for other models (`router.policy.transfer`)."""
    return _build_prior(TYPED_QUESTIONS, msgspec.convert(evidence, dict[str, Evidence]), models)


def transfer_evidence(policy: Policy, models: Sequence[Model]) -> dict[str, Any]:
    """The evidence of a policy for two models, transferred to another pair, in JSON types.

    The evidence on a type counts as at most PSEUDO_OUTCOMES outcomes, and is not certified.

    Raises:
        TransferError: the policy has more than two models, or the pair saves nothing.
    """
    evidence = {
        name: replace(of_type, kind="transferred", n=min(of_type.n, PSEUDO_OUTCOMES), output_tokens={})
        for name, of_type in transfer_policy(policy, *models).rules.evidence.items()
        if of_type.n > 0
    }
    builtins: dict[str, Any] = msgspec.to_builtins(evidence)
    return builtins


def _as_published(evidence: Evidence, version: str) -> Evidence:
    source = evidence.source or f"{evidence.n} outcomes of policy {version}"
    return replace(evidence, kind="published", n=min(evidence.n, PSEUDO_OUTCOMES), source=source)


def _read_typed_questions(path: Path) -> Iterator[tuple[bytes, str]]:
    """The chat body and the type of each typed question of a file; a row needs no other fields."""
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


def _index_by_benchmark(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Published results by the name of the benchmark, and by type where a benchmark has several."""
    several = Counter(row["benchmark"] for row in rows)
    return {
        row["benchmark"] if several[row["benchmark"]] == 1 else f"{row['benchmark']}: {row['question_type']}": row
        for row in rows
    }


def _published_row(rows: Mapping[str, Any], benchmark: str, types: Path) -> Mapping[str, Any]:
    row: Mapping[str, Any] | None = rows.get(benchmark)
    if row is None or row.get("kind") not in _KINDS:
        raise InputError(types, None, f"benchmark {benchmark!r} has no published result on a scale from 0 to 1")
    return row


def _published_evidence(rows: Sequence[Mapping[str, Any]], models: Sequence[str]) -> Evidence:
    """The unweighted mean of the published results, with the interval of PSEUDO_OUTCOMES outcomes."""
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


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(path, None, f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(path, None, f"is not JSON: {error}") from error

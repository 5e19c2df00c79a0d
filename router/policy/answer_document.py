"""The files of a policy that inspects answers: `answers.json` and `answers.npz`. A policy has both or neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from router.policy.answer_features import FEATURE_NAMES
from router.policy.answer_prediction import EXTRA_INPUTS, AnswerPredictor
from router.policy.answers import AnswerBenefit, AnswerRule, Answers
from router.policy.files import PolicyError, check_arrays, decode_document, encode_npz, read_npz
from router.policy.logprobs import LOGPROB_NAMES
from router.policy.rules import Rules

ANSWERS = "answers.json"
ANSWER_WEIGHTS = "answers.npz"
ANSWER_FILES = (ANSWERS, ANSWER_WEIGHTS)
FORMAT = 1
_ARRAYS = ("number_mean", "number_scale", "weights")


class _Document(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The content of `answers.json`."""

    format: int
    policy_sha256: str  # of policy.json and weights.npz, which the thresholds belong to
    types: dict[str, AnswerBenefit]
    targets: list[AnswerRule]
    numbers: list[str]  # names of the features, in the order of the weights; with those of log probabilities or without


def dump_answers(answers: Answers, policy_sha256: str) -> dict[str, bytes]:
    """The contents of the two files, by name, as `parse_answers` reads them."""
    document = _Document(
        format=FORMAT,
        policy_sha256=policy_sha256,
        types=dict(answers.types),
        targets=list(answers.targets),
        numbers=[*FEATURE_NAMES, *(LOGPROB_NAMES if answers.predictor.has_logprobs else ())],
    )
    arrays = {name: getattr(answers.predictor, name) for name in _ARRAYS}
    return {
        ANSWERS: msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n",
        ANSWER_WEIGHTS: encode_npz(arrays),
    }


def parse_answers(files: Mapping[str, bytes], rules: Rules, types: Sequence[str], policy_sha256: str) -> Answers | None:
    """Read the two files from the contents of a policy's files, by name; None if the policy has neither.

    Raises:
        PolicyError: one of the two files is missing or invalid, or belongs to another policy.
    """
    if not any(name in files for name in ANSWER_FILES):
        return None
    for name in ANSWER_FILES:
        if name not in files:
            raise PolicyError(
                name, f"is missing; a policy that inspects answers has both {ANSWERS} and {ANSWER_WEIGHTS}"
            )
    document = _parse_document(files[ANSWERS], rules, types, policy_sha256)
    arrays = read_npz(ANSWER_WEIGHTS, files[ANSWER_WEIGHTS], _ARRAYS)
    count = len(document.numbers)
    shapes = {"number_mean": (count,), "number_scale": (count,), "weights": (len(types), count + EXTRA_INPUTS)}
    check_arrays(ANSWER_WEIGHTS, arrays, shapes, ("number_scale",))
    if not (arrays["number_scale"] > 0).all():
        raise PolicyError(ANSWER_WEIGHTS, "number_scale holds a number that is not positive")
    return Answers(
        predictor=AnswerPredictor(types=tuple(types), **arrays),
        types=document.types,
        targets=tuple(sorted(document.targets, key=lambda rule: rule.target)),
    )


def _parse_document(content: bytes, rules: Rules, types: Sequence[str], policy_sha256: str) -> _Document:
    document = decode_document(ANSWERS, content, _Document, FORMAT)
    if document.policy_sha256 != policy_sha256:
        raise PolicyError(ANSWERS, "belongs to another policy than the files beside it")
    if len(rules.models) != 2:
        raise PolicyError(
            ANSWERS, f"inspects answers, which needs a policy of 2 models; this one has {len(rules.models)}"
        )
    if tuple(document.numbers) not in (FEATURE_NAMES, FEATURE_NAMES + LOGPROB_NAMES):
        raise PolicyError(ANSWERS, "was learnt from other answer features than this version computes")
    for name in document.types:
        if name not in types:
            raise PolicyError(ANSWERS, f"names a question type that the policy does not have: {name}")
    for rule in document.targets:
        if (rule.answer_limit is None) != (rule.quality_per_usd is None):
            raise PolicyError(
                ANSWERS,
                f"target {rule.target:g} has only one of answer_limit and quality_per_usd; it needs both or neither",
            )
    return document

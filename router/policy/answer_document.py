"""The part of a policy that is about answers: `answers.json` and `answers.npz`, both there or neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from router.policy.answer_features import NUMBERS
from router.policy.answer_prediction import BESIDE, AnswerPredictor
from router.policy.answers import AnswerRule, Answers, Help
from router.policy.files import PolicyError, check_arrays, npz, parsed, read_npz
from router.policy.rules import Rules

ANSWERS = "answers.json"
ANSWER_WEIGHTS = "answers.npz"
ANSWER_FILES = (ANSWERS, ANSWER_WEIGHTS)
FORMAT = 1
_ARRAYS = ("number_mean", "number_scale", "weights")


class _Document(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The form of `answers.json`."""

    format: int
    policy_sha256: str  # of policy.json and weights.npz: the thresholds are those of no other policy
    types: dict[str, Help]
    targets: list[AnswerRule]
    numbers: list[str]  # hand features, in the order of the weights


def dump_answers(answers: Answers, policy_sha256: str) -> dict[str, bytes]:
    """The contents of the two files, by name; `parse_answers` reads them back."""
    document = _Document(
        format=FORMAT,
        policy_sha256=policy_sha256,
        types=dict(answers.types),
        targets=list(answers.targets),
        numbers=list(NUMBERS),
    )
    arrays = {name: getattr(answers.predictor, name) for name in _ARRAYS}
    return {ANSWERS: msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n", ANSWER_WEIGHTS: npz(arrays)}


def parse_answers(files: Mapping[str, bytes], rules: Rules, types: Sequence[str], policy_sha256: str) -> Answers | None:
    """Read the part from the contents of a policy's files, by name; None where the policy has none.

    Raises:
        PolicyError: one of the two files is missing, does not fit its form, or is of another policy.
    """
    if not any(name in files for name in ANSWER_FILES):
        return None
    for name in ANSWER_FILES:
        if name not in files:
            raise PolicyError(name, "is missing from the policy, which has the other file of the two about answers")
    document = _document(files[ANSWERS], rules, types, policy_sha256)
    arrays = read_npz(ANSWER_WEIGHTS, files[ANSWER_WEIGHTS], _ARRAYS)
    count = len(NUMBERS)
    shapes = {"number_mean": (count,), "number_scale": (count,), "weights": (len(types), count + BESIDE)}
    check_arrays(ANSWER_WEIGHTS, arrays, shapes, ("number_scale",))
    if not (arrays["number_scale"] > 0).all():
        raise PolicyError(ANSWER_WEIGHTS, "number_scale holds a number that is too small")
    return Answers(
        predictor=AnswerPredictor(types=tuple(types), **arrays),
        types=document.types,
        targets=tuple(sorted(document.targets, key=lambda rule: rule.target)),
    )


def _document(content: bytes, rules: Rules, types: Sequence[str], policy_sha256: str) -> _Document:
    document = parsed(ANSWERS, content, _Document, FORMAT)
    if document.policy_sha256 != policy_sha256:
        raise PolicyError(ANSWERS, "belongs to another policy than the one beside it")
    if len(rules.models) != 2:
        raise PolicyError(ANSWERS, f"looks at answers of a pair; the policy has {len(rules.models)} models")
    if tuple(document.numbers) != NUMBERS:
        raise PolicyError(ANSWERS, "was learnt from other features of answers than this version reads")
    for name in document.types:
        if name not in types:
            raise PolicyError(ANSWERS, f"looks at a type that the policy does not know: {name}")
    for rule in document.targets:
        if (rule.answer_limit is None) != (rule.quality_per_usd is None):
            raise PolicyError(ANSWERS, f"target {rule.target:g} has one threshold; it needs both or none")
    return document

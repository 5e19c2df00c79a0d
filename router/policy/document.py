"""The files of a policy: parsed, checked, and serialized.

`policy.json` holds models, evidence and targets; `weights.npz` holds the arrays of the predictor. A policy that
inspects answers has `answers.json` and `answers.npz` as well. No file holds the text of a question, and none is
unpickled.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from router.policy.answer_document import ANSWER_FILES, dump_answers, parse_answers
from router.policy.answers import Answers, accepts_answer, decide_first_step
from router.policy.decision import decide
from router.policy.features import read_question
from router.policy.files import PolicyError as PolicyError  # raised by `parse`
from router.policy.files import check_arrays, decode_document, encode_npz, read_npz
from router.policy.inputs import NUMBER_NAMES
from router.policy.prediction import Predictor, compile_predictor, predict
from router.policy.rules import Evidence, Model, Rule, Rules
from router.policy.vocabulary import Vocabulary

DOCUMENT = "policy.json"
WEIGHTS = "weights.npz"
FILES = (DOCUMENT, WEIGHTS, *ANSWER_FILES)
FORMAT = 2
REGISTERED_MODEL = "router"  # in MLflow's registry
CHAMPION = "champion"  # the alias of the version that serves
_SAMPLE_QUESTIONS = ("What is 17 plus 25?", "")  # `parse` checks that the policy decides on these


@dataclass(frozen=True, slots=True)
class Policy:
    """The result of a calibration, which the proxy serves."""

    rules: Rules
    predictor: Predictor
    default_target: float
    about: Mapping[str, Any]  # for people: when and from what it was made, and its replay
    answers: Answers | None = None  # None if the policy inspects no answers

    @property
    def version(self) -> str:
        """The first 12 hex digits of the SHA-256 of its files, so that equal policies have equal versions."""
        return self.rules.version


class _Document(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The content of `policy.json`."""

    format: int
    about: dict[str, Any]
    models: list[Model]
    default_target: float
    caution: float
    doubt_weight: float
    risk_weight: float
    least_saving_usd: float
    published_tolerance: float
    least_type_probability: float
    no_evidence_limit: float
    usual_type_probability: float
    familiar_until: float
    novelty_limit: float
    targets: list[Rule]
    types: list[str]
    evidence: dict[str, Evidence]


_ARRAYS = (
    "table",
    "number_mean",
    "number_scale",
    "number_weights",
    "intercept",
    "type_slopes",
    "type_quality",
    "type_log_length",
    "type_variance",
    "type_measured",
    "length_smearing",
    "type_familiarity",
    "familiarity_quantiles",
)
_MAY_BE_INFINITE = ("number_scale",)  # for a feature that never varied


def dump(policy: Policy) -> dict[str, bytes]:
    """The contents of the policy's files, by name, as `parse` reads them."""
    rules, predictor = policy.rules, policy.predictor
    document = _Document(
        format=FORMAT,
        about=dict(policy.about),
        models=list(rules.models),
        default_target=policy.default_target,
        caution=rules.caution,
        doubt_weight=rules.doubt_weight,
        risk_weight=rules.risk_weight,
        least_saving_usd=rules.least_saving_usd,
        published_tolerance=rules.published_tolerance,
        least_type_probability=rules.least_type_probability,
        no_evidence_limit=rules.no_evidence_limit,
        usual_type_probability=rules.usual_type_probability,
        familiar_until=rules.familiar_until,
        novelty_limit=rules.novelty_limit,
        targets=list(rules.targets),
        types=list(predictor.types),
        evidence=dict(rules.evidence),
    )
    rows = predictor.vocabulary.rows
    vocabulary = sorted(rows, key=rows.__getitem__)
    arrays = {name: getattr(predictor, name) for name in _ARRAYS}
    arrays |= {"idf": predictor.vocabulary.idf, "type_sharpness": np.array([predictor.type_sharpness])}
    arrays["vocabulary"] = np.frombuffer("\n".join(vocabulary).encode(), dtype=np.uint8)
    files = {
        DOCUMENT: msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n",
        WEIGHTS: encode_npz(arrays),
    }
    return files if policy.answers is None else files | dump_answers(policy.answers, _sha256(files))


def _sha256(files: Mapping[str, bytes]) -> str:
    """The SHA-256 of the two files that every policy has."""
    return hashlib.sha256(files[DOCUMENT] + files[WEIGHTS]).hexdigest()


def parse(files: Mapping[str, bytes]) -> Policy:
    """Read a policy from the contents of its files, by name.

    Raises:
        PolicyError: a file is missing or does not fit its form.
    """
    for name in (DOCUMENT, WEIGHTS):
        if name not in files:
            raise PolicyError(name, "is missing from the policy")
    document = _parse_document(files[DOCUMENT])
    predictor = _parse_predictor(files[WEIGHTS], document)
    rules = Rules(
        models=tuple(document.models),
        evidence=document.evidence,
        targets=tuple(sorted(document.targets, key=lambda rule: rule.target)),
        caution=document.caution,
        doubt_weight=document.doubt_weight,
        risk_weight=document.risk_weight,
        least_saving_usd=document.least_saving_usd,
        published_tolerance=document.published_tolerance,
        least_type_probability=document.least_type_probability,
        no_evidence_limit=document.no_evidence_limit,
        usual_type_probability=document.usual_type_probability,
        familiar_until=document.familiar_until,
        novelty_limit=document.novelty_limit,
        version=_version(files),
    )
    answers = parse_answers(files, rules, predictor.types, _sha256(files))
    policy = Policy(rules, predictor, document.default_target, document.about, answers)
    _check_decides(policy)
    return policy


def _version(files: Mapping[str, bytes]) -> str:
    present = [files[name] for name in FILES if name in files]
    return hashlib.sha256(b"".join(present)).hexdigest()[:12]


def _check_decides(policy: Policy) -> None:
    """Decide on sample questions, because files that parse may still not work."""
    for text in _SAMPLE_QUESTIONS:
        try:
            features = read_question([{"role": "user", "content": text}])
            prediction = predict(policy.predictor, features)
            if not all(map(math.isfinite, (*prediction.quality.values(), *prediction.output_tokens.values()))):
                raise ValueError("it predicts a value that is not finite")
            for target in {policy.default_target, *(rule.target for rule in policy.rules.targets)}:
                decide(policy.rules, features, prediction, target)
                if policy.answers is not None:
                    decide_first_step(policy.answers, policy.rules, features, prediction, target)
                    accepts_answer(policy.answers, policy.rules, features, prediction, target, "42")
        except Exception as error:
            raise PolicyError(DOCUMENT, f"cannot decide: {type(error).__name__}: {error}") from error


def _parse_document(content: bytes) -> _Document:
    document = decode_document(DOCUMENT, content, _Document, FORMAT)
    if len(document.models) < 2 or len({model.name for model in document.models}) < len(document.models):
        raise PolicyError(DOCUMENT, "needs at least two models, each listed once, from cheap to strong")
    for name in ("default_target", "no_evidence_limit", "usual_type_probability", "familiar_until", "novelty_limit"):
        share = getattr(document, name)
        if not 0 < share <= 1:
            raise PolicyError(DOCUMENT, f"{name} must be above 0 and at most 1: {share}")
    for name in ("caution", "doubt_weight", "risk_weight", "least_saving_usd", "published_tolerance"):
        if not 0 <= getattr(document, name) < float("inf"):
            raise PolicyError(DOCUMENT, f"{name} must be a number of at least 0: {getattr(document, name)}")
    names = {model.name for model in document.models}
    for name, evidence in document.evidence.items():
        if evidence.kind != "none" and not names <= set(evidence.quality):
            raise PolicyError(DOCUMENT, f"the evidence of {name} lacks a model")
    if not 0 <= document.least_type_probability <= 1:
        raise PolicyError(DOCUMENT, f"least_type_probability must be from 0 to 1: {document.least_type_probability}")
    return document


def _parse_predictor(content: bytes, document: _Document) -> Predictor:
    arrays = read_npz(WEIGHTS, content, (*_ARRAYS, "idf", "type_sharpness", "vocabulary"))
    vocabulary = arrays.pop("vocabulary").tobytes().decode("utf-8", "replace").split("\n")
    models, types, terms = len(document.models), len(document.types), len(vocabulary)
    heads = 2 * models + types
    shapes = {
        "idf": (terms + 1,),
        "table": (terms, heads),
        "number_mean": (len(NUMBER_NAMES),),
        "number_scale": (len(NUMBER_NAMES),),
        "number_weights": (len(NUMBER_NAMES), heads),
        "intercept": (heads,),
        "type_sharpness": (1,),
        "type_slopes": (types, 2 * models, len(NUMBER_NAMES)),
        "type_quality": (types, models),
        "type_log_length": (types, models),
        "type_variance": (types, models),
        "type_measured": (types,),
        "length_smearing": (models,),
        "type_familiarity": (types,),
        "familiarity_quantiles": (max(arrays["familiarity_quantiles"].size, 1),),
    }
    check_arrays(WEIGHTS, arrays, shapes, _MAY_BE_INFINITE)
    if not (arrays["number_scale"] > 0).all() or arrays["type_sharpness"][0] < 0:
        raise PolicyError(WEIGHTS, "number_scale must be positive and type_sharpness at least 0")
    predictor = Predictor(
        models=tuple(model.name for model in document.models),
        types=tuple(document.types),
        vocabulary=Vocabulary({term: row for row, term in enumerate(vocabulary)}, arrays.pop("idf")),
        type_sharpness=float(arrays.pop("type_sharpness")[0]),
        **arrays,
    )
    compile_predictor(predictor)
    return predictor

"""Policies: refused with a PolicyError, or taken, and then they decide.

An input is `policy.json` and behind it `weights.npz`; where one of them is not there, the valid one takes its place.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from fuzz.inputs import changed_examples
from fuzz.targets import Target
from router.policy.decision import decide
from router.policy.document import DOCUMENT, WEIGHTS, Policy, PolicyError, dump, parse
from router.policy.features import read_question
from router.policy.inputs import terms
from router.policy.prediction import predict
from router.policy.vocabulary import Vocabulary

SHIPPED = Path(__file__).parents[2] / "data" / "policy"
ZIP = b"PK\x03\x04"
TYPES = ("facts/software", "factual/short-answer", "math/grade-school", "math/arithmetic")  # of each kind of evidence
OF_TYPES = ("type_slopes", "type_quality", "type_log_length", "type_variance", "type_measured", "type_familiarity")
TEXTS = (
    "What is the difference between a process and a thread in an operating system?",
    "Who wrote the novel The Old Man and the Sea, and in which year?",
    "Tom has 3 apples and buys 5 more. How many apples does Tom have now?",
    "What is 2 plus 2?",
)
QUESTIONS: Sequence[Sequence[Mapping[str, Any]]] = (
    *([{"role": "user", "content": text}] for text in ("", *TEXTS)),
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "é" * 500}],
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "And?"}],
)
TOOLS = [{"type": "function", "function": {"name": "f", "description": "adds", "parameters": {}}}]
PIECES = (
    *(b'"format": 2,', b'"quality_per_usd": null,', b'"quality_per_usd": -1e308,', b'"target": 0.97,', b"1e308"),
    *(b'"kind": "none"', b'"targets": [],', b'"models": [],', b'"gpt-4o"', b'"gpt-4o-mini"', b'"evidence": {},'),
    *(b'"type_limits": {"x": 1e999},', b'"image_tokens": [0, 0]', b'"context_tokens": 0,', b"1e-308"),
)  # fmt: skip


def small() -> dict[str, bytes]:
    """The shipped policy with few terms, types and targets, so that it is parsed in a millisecond."""
    policy = parse({name: (SHIPPED / name).read_bytes() for name in (DOCUMENT, WEIGHTS)})
    old, rules = policy.predictor, policy.rules
    types = [old.types.index(name) for name in TYPES]
    heads = [*range(2 * len(old.models)), *(2 * len(old.models) + number for number in types)]
    known = [term for term in sorted({*terms(" ".join(TEXTS))}) if term in old.vocabulary.rows]
    rows = [old.vocabulary.rows[term] for term in known]
    predictor = replace(
        old,
        types=TYPES,
        vocabulary=Vocabulary({term: row for row, term in enumerate(known)}, old.vocabulary.idf[[*rows, -1]]),
        table=old.table[np.ix_(rows, heads)],
        number_weights=old.number_weights[:, heads],
        intercept=old.intercept[heads],
        familiarity_quantiles=old.familiarity_quantiles[:: max(old.familiarity_quantiles.size // 20, 1)],
        **{name: getattr(old, name)[types] for name in OF_TYPES},
    )
    evidence = {name: known for name, known in rules.evidence.items() if name in TYPES}
    targets = tuple(replace(rule, kept_by_type={}) for rule in rules.targets[-4:])
    return dump(Policy(replace(rules, evidence=evidence, targets=targets), predictor, policy.default_target, {}))


def _arrays(weights: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(weights)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _packed(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def _npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()


ODD: Sequence[Callable[[Any], Any]] = (
    lambda a: a * 0,
    lambda a: -a,
    lambda a: a * 1e7,
    lambda a: a * -1e7,
    lambda a: np.full_like(a, np.nan),
    lambda a: np.full_like(a, np.inf),
    lambda a: np.full_like(a, np.finfo(a.dtype).max) if a.dtype.kind == "f" else a,
    lambda a: np.full_like(a, np.finfo(a.dtype).min) if a.dtype.kind == "f" else a,
    lambda a: a.astype(np.float16),
    lambda a: a.astype(np.int64),
    lambda a: a.astype(np.complex64),
    lambda a: a.astype("S4"),
    lambda a: a.astype(">f8"),
    lambda a: a[:0],
    lambda a: a[None],
    lambda a: a[::-1],
    lambda a: np.asfortranarray(a),
    lambda a: np.concatenate([a, a]),
)


def _transform_json(content: bytes, transform: Callable[[Any], Any]) -> bytes:
    with np.errstate(all="ignore"):
        return _npy(transform(np.load(io.BytesIO(content))))


def _weights(weights: bytes) -> st.SearchStrategy[bytes]:
    """Weights with one or two arrays that are odd, absent, or of changed bytes."""
    arrays = _arrays(weights)

    def content(name: str) -> st.SearchStrategy[tuple[str, bytes]]:
        odd = st.sampled_from(ODD).map(lambda how: _transform_json(arrays[name], how))
        return st.tuples(st.just(name), st.one_of(odd, odd, changed_examples([arrays[name]])))

    chosen_arrays = st.lists(st.sampled_from(sorted(arrays)).flatmap(content), min_size=1, max_size=2)
    without = st.sampled_from(sorted(arrays)).map(
        lambda name: {
            name_of_array: content_of_array
            for name_of_array, content_of_array in arrays.items()
            if name_of_array != name
        }
    )
    return st.one_of(chosen_arrays.map(lambda given: _packed({**arrays, **dict(given)})), without.map(_packed))


def _split(data: bytes, valid: Mapping[str, bytes]) -> dict[str, bytes]:
    position = data.find(ZIP)
    document, weights = (data, b"") if position < 0 else (data[:position], data[position:])
    return {DOCUMENT: document or valid[DOCUMENT], WEIGHTS: weights or valid[WEIGHTS]}


def _check(data: bytes, valid: Mapping[str, bytes]) -> None:
    with np.errstate(all="ignore"):
        try:
            policy = parse(_split(data, valid))
        except PolicyError:
            return
        names = {model.name for model in policy.rules.models}
        for messages in QUESTIONS:
            for tools in (None, TOOLS):
                features = read_question(messages, tools)
                prediction = predict(policy.predictor, features)
                for target in (policy.default_target, 0.01, 0.9, 1.0):
                    assert decide(policy.rules, features, prediction, target).model in names
        dump(policy)


@contextmanager
def open_target() -> Iterator[Target]:
    """The target, with a small policy."""
    valid = small()
    document = changed_examples([valid[DOCUMENT]], PIECES)
    weights = st.one_of(_weights(valid[WEIGHTS]), _weights(valid[WEIGHTS]), changed_examples([valid[WEIGHTS]]))
    either = st.one_of(document, weights, weights, st.builds(bytes.__add__, document, weights), st.binary(max_size=300))
    yield Target(lambda data: _check(data, valid), either)

"""The compiled prediction and the one in NumPy agree, whatever the text."""

import pickle
import string
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.policy.distribution import SHIPPED
from router.policy.inputs import IGNORED_WORDS, NUMBER_NAMES, ToolMatch
from router.policy.prediction import IS_COMPILED, PredictionKernel, _compute_outputs, compile_predictor
from router.policy.question_parts import QuestionParts
from router.serving.policy import read_policy

pytestmark = pytest.mark.skipif(not IS_COMPILED, reason="the module was not compiled (make setup needs a compiler)")


def every_input_counts(predictor):
    """The predictor with weights that are large and different for each hand feature, so that no error stays hidden."""
    chance = np.random.default_rng(0)
    varied = replace(
        predictor,
        number_mean=np.zeros_like(predictor.number_mean),
        number_scale=np.full_like(predictor.number_scale, 2.0),
        number_weights=chance.normal(size=predictor.number_weights.shape),
        type_sharpness=0.05,
        type_measured=np.ones_like(predictor.type_measured),
        type_quality=np.full_like(predictor.type_quality, 0.5),
    )
    compile_predictor(varied)
    return varied


SHIPPED_PREDICTOR = read_policy(SHIPPED).predictor
PREDICTORS = [SHIPPED_PREDICTOR, every_input_counts(SHIPPED_PREDICTOR)]
KNOWN = sorted(term for term in SHIPPED_PREDICTOR.vocabulary.rows if term.isascii())[::97]
COUNTED = [
    *"+*/=<>^%{}();[]_?\"'`\n$\\",
    "::",
    ":::",
    "->",
    "=>",
    "A) ",
    "(b)",
    "\nC. ",
    "\n(d): ",
    "3.14",
    "1,000",
    "1.2.3.4",
]
PIECES = st.one_of(
    st.sampled_from(KNOWN + sorted(IGNORED_WORDS)),
    st.sampled_from([*COUNTED, "\\frac{1}", "$x$", "don't"]),
    st.text(string.printable, max_size=6),
    st.text(max_size=3),
)
TEXTS = st.builds("".join, st.lists(st.one_of(PIECES, st.sampled_from([" ", " ", "\n"])), max_size=60))


def both(predictor, question, material, tools):
    fast = predictor.kernel.predict(question, material, tools.matching, tools.share)
    return fast, _compute_outputs(predictor, QuestionParts(question, material), tools)


@given(TEXTS, st.one_of(st.just(""), TEXTS), st.builds(ToolMatch, st.integers(0, 128), st.floats(0, 1)))
@example(" ".join(COUNTED), "".join(COUNTED), ToolMatch())
@example("", "", ToolMatch())
@example("Wie heißt ΣΊΣΥΦΟΣ, İstanbul'da ½ Ⅷ x² ٣٫٤ ٣.٤ 𝟗𝟗,𝟗 it'sé 中文？\u3000ab\u00a0c", "ÀÉ'ab", ToolMatch())
@example("'", "'", ToolMatch())
@example("a'", "1.", ToolMatch())
@example("(A", "", ToolMatch())
@example("A)", "", ToolMatch())
@example("(A) ", "", ToolMatch())
@example("0" * 4000, "9." * 1500, ToolMatch())
@example("a\x1cb\x1fc\x0bd\x7fe\x00f_g", "", ToolMatch())
def test_both_compute_the_same(question, material, tools):
    for predictor in PREDICTORS:
        fast, slow = both(predictor, question, material, tools)
        assert fast[0] == slow[0]
        for found, expected in zip(fast[1:], slow[1:], strict=True):
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_copy_with_other_weights_does_not_keep_the_kernel_of_the_original():
    assert replace(SHIPPED_PREDICTOR, type_sharpness=1.0).kernel is None


def test_a_kernel_survives_pickling():
    copy = pickle.loads(pickle.dumps(SHIPPED_PREDICTOR))
    arguments = "What is the capital of France?", "Paris is large.", 1, 0.5
    assert copy.kernel.predict(*arguments) == SHIPPED_PREDICTOR.kernel.predict(*arguments)


MATRICES = ("table", "number_weights", "type_table")
VECTORS = ("idf", "number_mean", "number_scale", "intercept", "type_familiarity")


@pytest.mark.parametrize(
    ("name", "axis"), [*((name, 0) for name in (*VECTORS, *MATRICES)), *((name, 1) for name in MATRICES)]
)
def test_weights_whose_shapes_do_not_agree_are_refused(name, axis):
    predictor = SHIPPED_PREDICTOR
    arrays = {
        "idf": predictor.vocabulary.idf,
        "table": predictor.table,
        "number_mean": predictor.number_mean,
        "number_scale": predictor.number_scale,
        "number_weights": predictor.number_weights,
        "intercept": predictor.intercept,
        "type_table": predictor.type_table,
        "smearing": predictor.length_smearing,
        "type_familiarity": predictor.type_familiarity,
    }
    arrays[name] = np.ascontiguousarray(np.delete(arrays[name], -1, axis))
    with pytest.raises(ValueError, match="do not agree"):
        PredictionKernel(
            predictor.models, predictor.types, list(predictor.vocabulary.rows), IGNORED_WORDS, **arrays,
            familiarity_quantiles=predictor.familiarity_quantiles, sharpness=1.0, number_limit=4.0,
            material_weight=0.3, most_tokens=16384, number_characters=8,
        )  # fmt: skip


def test_the_kernel_computes_every_hand_feature():
    assert len(NUMBER_NAMES) == 15  # `FEATURES` of the kernel, which would refuse any other number
    assert SHIPPED_PREDICTOR.kernel is not None

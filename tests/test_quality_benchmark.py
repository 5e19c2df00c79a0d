import json
import sys
from pathlib import Path

import numpy as np
import pytest
from made_outcomes import made_outcomes

from calibration.certificate import p_value
from calibration.learning import examples_of

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import certificate
import prediction
import quality
import ranking

PAIR = ("gpt-4o-mini", "gpt-4o")


@pytest.fixture(scope="module")
def pool():
    return certificate.pools(made_outcomes(900, seed=5), 0, (0.9,))[0]


def test_near_duplicates_never_stand_on_both_sides_of_a_resplit(pool):
    rows = certificate.resplit(pool, 300, np.random.default_rng(0))
    assert set(rows) == set(certificate.METHODS)
    for kept, saved, _, possible in rows.values():
        assert 0.8 < kept <= 1.1
        assert saved <= 1
        assert possible >= 0


def test_the_naive_choice_saves_at_least_what_a_tested_one_does(pool):
    everything = np.arange(len(pool.groups))
    saved = pool.saved(everything)
    tested = certificate.last_passed(pool, everything, p_value)
    assert tested >= 0
    assert saved[certificate.cheapest_that_kept(pool, everything)] >= saved[tested]


def test_the_t_test_is_tighter_than_the_exact_one():
    values = np.random.default_rng(0).permutation(np.repeat([-0.97, 0.03, 0.3], [10, 700, 90]))
    assert certificate.t_test(values, -0.97) < p_value(values, -0.97)


def test_the_yardstick_and_the_router_both_learn_what_made_outcomes_teach():
    examples = examples_of(made_outcomes(900, seed=6), PAIR)
    train, new = examples.part(np.arange(600)), examples.part(np.arange(600, 900))
    hard = np.array([t == "law/clauses" for t in new.types])
    for gaps in (ranking.yardstick(train, new.features), ranking.router(train, new.features, PAIR, 0)):
        assert gaps[hard].mean() > gaps[~hard].mean() + 0.1


def test_a_question_that_was_learnt_from_is_not_measured():
    ranks = np.array([[np.nan, 0.5, 0.1], [0.3, np.nan, 0.2]])
    counted = ranking._mean(lambda g, s: float(len(g)), ranks, np.arange(3), np.zeros((3, 2)))
    assert counted == 2


def test_a_prediction_of_the_shipped_policy_costs_little():
    figures = prediction.measure(Path(__file__).parent.parent / "data" / "policy", None)
    assert figures["predict_ms"]["median"] < 3  # the limit is 0.3 on a quiet machine; this one may be busy
    assert figures["long_prompt_ms"] < 20
    assert not figures["resident_mb"] > 60


def test_a_place_of_the_page_is_replaced_and_a_missing_one_is_named():
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb"
    assert quality.filled(quality.filled(page, {"x": "new"}), {"x": "newer"}) == (
        "a\n<!-- x -->\n\nnewer\n\n<!-- /x -->\nb"
    )
    with pytest.raises(SystemExit, match="no place <!-- y -->"):
        quality.filled(page, {"y": "new"})


def test_the_page_is_what_the_kept_results_say():
    if not (quality.FOLDER / "results.json").is_file():
        pytest.skip("the results have not been measured here")
    results = json.loads((quality.FOLDER / "results.json").read_text())
    page = quality.PAGE.read_text()
    for name, text in quality.parts_of(results).items():
        assert text in page, name


def test_without_the_recorded_outcomes_the_benchmarks_say_that_they_skip(tmp_path, monkeypatch, capsys):
    for script, arguments in ((quality, ["--data", str(tmp_path)]), (ranking, [str(tmp_path)])):
        monkeypatch.setattr(sys, "argv", ["script", *arguments])
        assert script.main() == 0
        assert "skipped" in capsys.readouterr().out

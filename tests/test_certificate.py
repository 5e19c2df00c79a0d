import numpy as np
import pytest
from made_outcomes import made_outcomes

from calibration.certificate import losses, p_value, questions_needed, threshold_grid
from calibration.duplicates import near_duplicate_groups
from calibration.learning import LearningError, learn, mean_interval, split
from calibration.policies import load_prices, models_named
from calibration.replay import apgr, bootstrap, cpt, pgr_curve, saved_cost

PAIR = ("gpt-4o-mini", "gpt-4o")


def test_the_test_rejects_a_true_null_in_at_most_five_percent_of_trials():
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(2000):
        values = np.where(rng.random(300) < 0.1, -0.9, 0.1)  # mean exactly 0, in [-0.97, 1]
        rejected += p_value(values, -0.97) <= 0.05
    assert rejected <= 0.05 * 2000


def test_the_test_finds_a_promise_that_is_kept_with_room():
    rng = np.random.default_rng(0)
    values = np.where(rng.random(1000) < 0.05, -0.97, 0.12)
    assert p_value(values, -0.97) < 0.01


def test_escalating_everything_keeps_every_target_below_one():
    scores = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]] * 200)
    assert losses(scores, np.ones(600, dtype=int), 0.97).mean() == pytest.approx(0.03 * 2 / 3)


def test_more_questions_of_the_same_kind_are_enough_where_the_count_says_so():
    rng = np.random.default_rng(1)
    few = rng.permutation(np.repeat([-0.97, 0.1], [7, 93]))
    more = questions_needed(few, -0.97)
    assert p_value(few, -0.97) > 0.05
    assert more is not None
    assert p_value(np.resize(few, len(few) + more), -0.97) <= 0.06
    assert questions_needed(-few, -0.97) is None or few.mean() < 0


def test_the_grid_goes_from_always_strong_to_always_cheap():
    grid = threshold_grid(np.linspace(-1, 1, 1001))
    assert (np.diff(grid) > 0).all()
    assert grid[0] < -0.9
    assert grid[-1] >= 1


def test_a_random_ranking_recovers_half_the_gap_and_a_perfect_one_more():
    rng = np.random.default_rng(0)
    scores = np.stack([rng.integers(0, 2, 2000), np.ones(2000)], axis=1).astype(float)
    assert apgr(np.zeros(2000), scores) == pytest.approx(0.5, abs=0.001)
    assert apgr(scores[:, 1] - scores[:, 0], scores) > 0.7
    assert pgr_curve(np.zeros(2000), scores)[[0, -1]].tolist() == pytest.approx([0, 1])
    assert cpt(np.zeros(2000), scores, 0.5) == pytest.approx(0.5, abs=0.001)


def test_the_saving_in_hindsight_is_that_of_the_cheapest_threshold_that_keeps_the_target():
    scores = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    costs = np.array([[1.0, 10.0]] * 4)
    assert saved_cost(np.array([0.0, 0.1, 0.8, 0.9]), scores, costs, 1.0) == pytest.approx(1 - 22 / 40)
    assert saved_cost(np.array([0.9, 0.8, 0.1, 0.0]), scores, costs, 1.0) == pytest.approx(0.0)


def test_near_duplicates_stay_on_one_side_of_a_split():
    texts = [f"What does clause {word} of the tenancy say about the deposit?" for word in ("nine", "nine", "two")]
    texts += [f"Completely different matter {i} about {w}" for i, w in enumerate(("rivers", "sums", "stars", "code"))]
    groups = near_duplicate_groups(texts)
    assert groups[0] == groups[1]
    assert len(set(groups.tolist())) >= 5
    train, test = split(np.repeat(np.arange(50), 4), 0.3, seed=0)
    assert not set((train // 4).tolist()) & set((test // 4).tolist())
    assert 0.2 <= len(test) / 200 <= 0.3


def test_an_interval_of_answers_that_are_all_alike_is_not_a_point():
    low, mean, high = mean_interval(np.ones(20), 0.0, 1.0)
    assert low < 0.99
    assert (mean, high) == (1.0, 1.0)


def test_the_bootstrap_interval_covers_the_mean():
    values = np.random.default_rng(0).normal(size=400)
    low, mean, high = bootstrap(lambda rows: float(values[rows].mean()), np.arange(400), 200, seed=0)
    assert low < mean < high
    assert high - low == pytest.approx(4 / 20, rel=0.3)


def test_where_the_cheap_model_is_much_worse_everywhere_the_policy_does_not_route():
    truth = dict.fromkeys(("sums/easy", "law/clauses", "code/tracing", "facts/capitals"), (0.3, 0.95))
    policy = learn(made_outcomes(800, truth=truth), models_named(PAIR, load_prices()), seed=0, about={})
    strict = policy.rules.rule(0.97)
    assert strict is None or strict.expected_saving.estimate < 0.05


def test_a_target_that_was_not_shown_is_kept_by_the_next_stricter_one_that_was():
    policy = learn(made_outcomes(400), models_named(PAIR, load_prices()), seed=0, about={})
    shown = [rule.target for rule in policy.rules.targets if rule.certified]
    assert shown
    strictest = policy.rules.rule(min(shown))
    assert strictest is not None
    assert policy.rules.rule(0.01) is strictest
    assert policy.rules.rule(max(shown) + 0.001) is None


def test_too_few_questions_are_an_error_that_says_how_many_are_needed():
    with pytest.raises(LearningError, match="at least 60"):
        learn(made_outcomes(20), models_named(PAIR, load_prices()), seed=0, about={})

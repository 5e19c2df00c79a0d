from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs
from synthetic_outcomes import synthetic_outcomes

from calibration.learning.certificate import TARGETS, FixedSequenceTest, excess_quality
from calibration.learning.crossfit import cross_fit
from calibration.learning.duplicates import near_duplicate_groups
from calibration.learning.intervals import bootstrap, lower_bound, mean_interval
from calibration.learning.learning import LearningError, build_examples, cross_fit_replay, learn
from calibration.learning.prior import Prior
from calibration.learning.ranking import apgr, cpt, pgr_curve, saved_cost
from calibration.learning.replay import Replay, pick_columns
from calibration.policies import load_prices, models_named
from router.policy.prices import Price
from router.policy.rules import Interval, Model, Promise, Rule

PAIR = ("gpt-4o-mini", "gpt-4o")


def test_the_bound_is_above_a_true_mean_of_zero_in_at_most_five_percent_of_trials():
    rng = np.random.default_rng(0)
    for n in (100, 300, 1000):
        passed = 0
        for _ in range(1000):
            values = np.where(rng.random(n) < 0.1, -0.9, 0.1)  # mean exactly 0, in [-0.97, 1]
            passed += lower_bound(values, np.arange(n), -0.97) >= 0
        assert passed <= 0.05 * 1000


@pytest.mark.parametrize("n", [100, 200, 400])
@pytest.mark.parametrize("gains", [0.0, 0.002, 0.01, 0.04])
@pytest.mark.parametrize("target", [0.95, 0.97, 0.98])
def test_a_target_that_is_just_kept_is_certified_in_at_most_five_percent_of_trials(n, gains, target):
    strong, trials = 0.6, 3000
    losses = (1 - target) * strong + gains  # so that exactly the target is kept
    shares = [losses, gains, strong - losses, 1 - strong - gains]
    counts = np.random.default_rng(0).multinomial(n, shares, trials)
    outcome_values = np.array(
        [-target, 1.0, 1 - target, 0.0]
    )  # only the strong model correct, only the cheap one, both, none
    passed = sum(lower_bound(np.repeat(outcome_values, count), np.arange(n), -target) >= 0 for count in counts)
    assert passed <= trials * 0.05 + 2 * (trials * 0.05 * 0.95) ** 0.5


def test_the_bound_certifies_a_target_that_is_kept_with_a_margin():
    rng = np.random.default_rng(0)
    values = np.where(rng.random(1000) < 0.05, -0.97, 0.12)
    assert lower_bound(values, np.arange(1000), -0.97) > 0.01


def test_near_duplicates_count_as_one_question():
    values = np.tile([0.1, 0.1, -0.1], 100)
    separate_bound, grouped_bound = (
        lower_bound(values, groups, -0.97) for groups in (np.arange(300), np.arange(300) // 3 // 10)
    )
    assert grouped_bound != pytest.approx(separate_bound)
    copies = lower_bound(np.repeat(values, 10), np.repeat(np.arange(300), 10), -0.97)
    assert copies == pytest.approx(separate_bound, abs=0.01)  # copies add no evidence


def test_escalating_everything_keeps_every_target_below_one():
    scores = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]] * 200)
    assert excess_quality(scores, np.ones(600, dtype=int), 0.97).mean() == pytest.approx(0.03 * 2 / 3)


@pytest.fixture(scope="module")
def learning():
    return learn(synthetic_outcomes(600), models_named(PAIR, load_prices()), seed=0, about={})


def sequence_of(learning, **options):
    return FixedSequenceTest(learning.policy.rules, learning.replay, learning.replay, learning.groups, **options)


def test_the_grid_goes_from_always_strong_to_always_cheap(learning):
    grid = sequence_of(learning).grid(0.9)
    choose = learning.replay.chooser(learning.policy.rules, 0.9)
    shares = [float((choose(np.full(len(learning.groups), price)) == 0).mean()) for price in grid]
    assert (np.diff(grid) > 0).all()
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    needed = learning.replay.switch_thresholds(learning.policy.rules, 0.9)
    assert shares[-1] == pytest.approx(np.isfinite(needed).mean())


def test_the_thresholds_of_three_models_choose_as_the_proxy_decides(learning):
    rules, rng = learning.policy.rules, np.random.default_rng(0)
    middle = Model("between", Price(1.0, 4.0))
    predictions = []
    for prediction in learning.replay.predictions[:150]:
        cheap, strong = (prediction.quality[name] for name in PAIR)
        tokens = prediction.output_tokens | {"between": 150.0}
        quality = prediction.quality | {"between": float(rng.uniform(min(cheap, strong), max(cheap, strong)))}
        doubt = prediction.doubt | {"between": 0.01}
        predictions.append(structs.replace(prediction, quality=quality, output_tokens=tokens, doubt=doubt))
    models = (rules.models[0], middle, rules.models[1])
    rows = {name: getattr(learning.replay, name)[:150] for name in ("outcomes", "features", "costs_usd", "scores")}
    three_models = Replay(predictions=predictions, models=models, **rows)
    chosen_models = set()
    for price in (0.0, 30.0, 100.0, 300.0, 1000.0):
        rule = Rule(0.9, price, False, 150, 0.95, Interval(0.0, 0.0, 0.0))
        decisions = three_models.choose(replace(rules, models=models, targets=(rule,)), 0.9)
        choices = three_models.chooser(replace(rules, models=models), 0.9)(np.full(150, price))
        assert (decisions == choices).all()
        chosen_models |= set(choices.tolist())
    assert chosen_models == {0, 1, 2}


def test_the_decision_on_a_question_changes_at_its_switch_threshold(learning):
    rule = learning.policy.rules.rule_for(0.9)
    choices = learning.replay.choose(learning.policy.rules, 0.9)
    needed = learning.replay.switch_thresholds(learning.policy.rules, rule.target)
    types = [prediction.question_type for prediction in learning.replay.predictions]
    price = np.array([min(rule.quality_per_usd, rule.type_limits.get(name, np.inf)) for name in types])
    assert ((needed < price) == (choices == 0)).all()


@pytest.fixture(scope="module")
def small_learning():
    return learn(synthetic_outcomes(150), models_named(PAIR, load_prices()), seed=0, about={}).policy


def test_a_target_that_is_not_certified_suggests_more_questions(small_learning):
    missing = [rule for rule in small_learning.rules.targets if not rule.certified]
    assert missing
    assert any(rule.more_questions_needed for rule in missing)


def test_no_question_is_predicted_by_a_model_fitted_on_it():
    outcomes = synthetic_outcomes(200)
    examples = build_examples(outcomes, PAIR)
    examples.scores[7] = [0.0, 1.0]
    before = cross_fit(examples, PAIR, 0).predictions[7]
    examples.scores[7] = [1.0, 0.0]
    after = cross_fit(examples, PAIR, 0).predictions[7]
    assert before.quality == pytest.approx(after.quality, abs=0.01)  # hand features of all types share a scale


def test_a_type_that_would_likely_keep_too_little_gets_a_limit():
    truth = {"sums/easy": (0.99, 0.99), "law/clauses": (0.4, 0.95), "facts/capitals": (0.99, 0.99)}
    outcomes = synthetic_outcomes(900, truth=truth)
    policy = learn(outcomes, models_named(PAIR, load_prices()), seed=0, about={}, targets=(0.8,)).policy
    loose = learn(
        outcomes, models_named(PAIR, load_prices()), seed=0, about={}, targets=(0.8,), type_margin=0.79
    ).policy
    assert policy.rules.targets[0].kept_by_type["law/clauses"].high > 0.8 - 0.03
    assert loose.rules.targets[0].kept_by_type["law/clauses"].estimate < 0.7


def test_an_expected_promise_has_the_share_of_resplits_that_fall_short(small_learning):
    models = models_named(PAIR, load_prices())
    expected = learn(synthetic_outcomes(150), models, 0, {}, promise=Promise.EXPECTED).policy.rules
    for proof, estimate in zip(small_learning.rules.targets, expected.targets, strict=True):
        assert estimate.expected_saving.estimate >= proof.expected_saving.estimate - 1e-9
        if estimate.quality_per_usd is not None:
            assert (estimate.promise is Promise.EXPECTED) == (estimate.falls_short is not None)
    assert any(rule.falls_short for rule in expected.targets if rule.falls_short is not None)


def test_the_default_target_is_the_highest_useful_one_up_to_97_percent(learning, small_learning):
    models = models_named(PAIR, load_prices())
    for policy in (learn(synthetic_outcomes(80), models, seed=0, about={}).policy, small_learning, learning.policy):
        useful = [
            rule.target
            for rule in policy.rules.targets
            if rule.expected_saving.estimate >= 0.05 and rule.target <= 0.97
        ]
        assert policy.default_target == max((target for target in useful if target >= 0.9), default=0.97)


def test_a_few_hundred_questions_are_enough_to_save_cost():
    outcomes, new = synthetic_outcomes(300), synthetic_outcomes(2000, seed=9)
    policy = learn(outcomes, models_named(PAIR, load_prices()), seed=0, about={}).policy
    from calibration.learning.replay import replay_outcomes

    replay = replay_outcomes(new, policy.predictor, policy.rules.models)
    for target in (0.9, 0.95):
        choices = replay.choose(policy.rules, target)
        assert pick_columns(replay.scores, choices).sum() >= target * replay.scores[:, -1].sum()
        assert pick_columns(replay.costs_usd, choices).sum() < 0.75 * replay.costs_usd[:, -1].sum()


def test_a_cross_fitted_replay_is_the_same_with_the_same_seed():
    outcomes, models = synthetic_outcomes(200), models_named(PAIR, load_prices())
    learning = learn(outcomes, models, 3, {}, Prior(), TARGETS)
    again, groups = cross_fit_replay(outcomes, models, 3)
    assert [prediction.quality for prediction in again.predictions] == [
        prediction.quality for prediction in learning.replay.predictions
    ]
    assert (groups == learning.groups).all()


def test_a_random_ranking_recovers_half_the_gap_and_a_perfect_one_more():
    rng = np.random.default_rng(0)
    scores = np.stack([rng.integers(0, 2, 2000), np.ones(2000)], axis=1).astype(float)
    assert apgr(np.zeros(2000), scores) == pytest.approx(0.5, abs=0.001)
    assert apgr(scores[:, 1] - scores[:, 0], scores) > 0.7
    assert pgr_curve(np.zeros(2000), scores)[[0, -1]].tolist() == pytest.approx([0, 1])
    assert cpt(np.zeros(2000), scores, 0.5) == pytest.approx(0.5, abs=0.001)


def test_the_saved_cost_is_that_of_the_cheapest_threshold_that_keeps_the_target():
    scores = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    costs = np.array([[1.0, 10.0]] * 4)
    assert saved_cost(np.array([0.0, 0.1, 0.8, 0.9]), scores, costs, 1.0) == pytest.approx(1 - 22 / 40)
    assert saved_cost(np.array([0.9, 0.8, 0.1, 0.0]), scores, costs, 1.0) == pytest.approx(0.0)


def test_near_duplicates_are_found():
    texts = [f"What does clause {word} of the tenancy say about the deposit?" for word in ("nine", "nine", "two")]
    texts += [
        f"Completely different matter {i} about {subject}"
        for i, subject in enumerate(("rivers", "sums", "stars", "code"))
    ]
    groups = near_duplicate_groups(texts)
    assert groups[0] == groups[1]
    assert len(set(groups.tolist())) >= 5


def test_the_interval_of_equal_values_is_not_a_point():
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
    policy = learn(synthetic_outcomes(800, truth=truth), models_named(PAIR, load_prices()), seed=0, about={}).policy
    strict = policy.rules.rule_for(0.97)
    assert strict is None or strict.expected_saving.estimate < 0.05


def test_a_target_that_is_not_certified_uses_the_next_stricter_certified_one(learning):
    policy = learning.policy
    certified_targets = [rule.target for rule in policy.rules.targets if rule.certified]
    assert certified_targets
    strictest = policy.rules.rule_for(min(certified_targets))
    assert strictest is not None
    assert policy.rules.rule_for(0.01) is strictest
    assert policy.rules.rule_for(max(certified_targets) + 0.001) is None


def test_too_few_questions_are_an_error_that_says_how_many_are_needed():
    with pytest.raises(LearningError, match="at least 60"):
        learn(synthetic_outcomes(20), models_named(PAIR, load_prices()), seed=0, about={})

"""The figures of a target for a mix of question types that differs from the outcomes'."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from synthetic_outcomes import TRUTH, synthetic_outcomes
from synthetic_records import make_record
from test_calibration_commands import calibration

from calibration.comparison.mix import evaluate_mix, read_mix
from calibration.learning.duplicates import near_duplicate_groups
from calibration.learning.learning import learn
from calibration.learning.replay import pick_columns, replay_outcomes
from calibration.outcomes import InputError, write_outcomes
from calibration.policies import load_prices, models_named, write_policy
from calibration.traffic.mix import load_mix
from router.policy.mix import ALL_QUALITY, quality_kept_by_mix, target_support
from router.policy.prices import Price, PriceBook
from router.policy.rules import Evidence, Interval, Model, Rule, Rules
from router.usage.ledger import Ledger

PAIR = ("gpt-4o-mini", "gpt-4o")


@pytest.fixture(scope="module")
def policy():
    return learn(synthetic_outcomes(800), models_named(PAIR, load_prices()), seed=0, about={}).policy


@pytest.fixture(scope="module")
def fresh():
    return synthetic_outcomes(400, seed=9)


@pytest.fixture(scope="module")
def replay(policy, fresh):
    return replay_outcomes(fresh, policy.predictor, policy.rules.models)


def evaluate_policy_mix(policy, replay, mix, rounds=60):
    groups = near_duplicate_groups([outcome.text for outcome in replay.outcomes])
    return evaluate_mix(policy, replay, groups, mix, rounds, seed=0)


def pooled_figures(policy, replay, rows, target):
    """The share of quality kept and of cost spent on these rows, each counted once."""
    choices = replay.choose(policy.rules, target)
    kept_share, spent_share = (
        pick_columns(table, choices)[rows].sum() / table[rows, -1].sum() for table in (replay.scores, replay.costs_usd)
    )
    return kept_share, 1 - spent_share


def test_the_mix_of_the_outcomes_gives_their_own_figures(policy, replay):
    mix_report = evaluate_policy_mix(policy, replay, dict.fromkeys(TRUTH, 0.25))["targets"]
    for rule in policy.rules.targets:
        figures = mix_report[f"{rule.target:g}"]
        assert (figures["quality_kept"][1], figures["saved_cost"][1]) == pytest.approx(
            pooled_figures(policy, replay, slice(None), rule.target)
        )
        assert figures["quality_kept"].low <= figures["quality_kept"].estimate <= figures["quality_kept"].high


def test_a_mix_of_one_type_gives_the_figures_of_that_type(policy, replay, fresh):
    for name in TRUTH:
        rows = np.flatnonzero([outcome.question_type == name for outcome in fresh])
        mix_report = evaluate_policy_mix(policy, replay, {name: 1.0})
        assert mix_report["n"] == 100
        figures = mix_report["targets"]["0.95"]
        assert (figures["quality_kept"][1], figures["saved_cost"][1]) == pytest.approx(
            pooled_figures(policy, replay, rows, 0.95)
        )


def test_each_type_counts_by_its_share(policy, fresh):
    rows = [outcome for i, outcome in enumerate(fresh) if outcome.question_type == "law/clauses" or i % 5 == 0]
    mix = {"law/clauses": 0.3, "sums/easy": 0.7}
    replay = replay_outcomes(rows, policy.predictor, policy.rules.models)
    figures = evaluate_policy_mix(policy, replay, mix)["targets"]["0.9"]
    choices = replay.choose(policy.rules, 0.9)
    rows_by_type = {name: np.flatnonzero([outcome.question_type == name for outcome in rows]) for name in mix}
    for table, value in ((replay.scores, figures["quality_kept"][1]), (replay.costs_usd, 1 - figures["saved_cost"][1])):
        chosen_mean = sum(
            share * pick_columns(table, choices)[rows_by_type[name]].mean() for name, share in mix.items()
        )
        strong_mean = sum(share * table[rows_by_type[name], -1].mean() for name, share in mix.items())
        assert value == pytest.approx(chosen_mean / strong_mean)


def test_types_without_outcomes_count_as_sent_to_the_strong_model(policy, replay):
    single_type_figures = evaluate_policy_mix(policy, replay, {"sums/easy": 1.0})["targets"]["0.9"]
    mix_report = evaluate_policy_mix(policy, replay, {"sums/easy": 0.5, "poems": 0.3, "jokes": 0.2})
    assert mix_report["missing"] == {"types": ["jokes", "poems"], "share": pytest.approx(0.5)}
    figures = mix_report["targets"]["0.9"]
    assert figures["saved_cost"][1] == pytest.approx(single_type_figures["saved_cost"][1] / 2)
    assert figures["quality_kept"][1] == pytest.approx(0.5 + single_type_figures["quality_kept"][1] / 2)


def test_a_target_is_kept_or_missed_for_a_mix(policy, fresh):
    """If all answers of the cheap model are wrong, the promise for other questions does not hold."""
    reached, missed = (
        replay_outcomes(
            [
                replace(
                    outcome,
                    results={
                        model: replace(result, score=float(model == "gpt-4o") or cheap)
                        for model, result in outcome.results.items()
                    },
                )
                for outcome in fresh
            ],
            policy.predictor,
            policy.rules.models,
        )
        for cheap in (1.0, 0.0)
    )
    mix = {"sums/easy": 1.0}
    assert evaluate_policy_mix(policy, reached, mix)["targets"]["0.95"]["holds"] == "shown"
    assert evaluate_policy_mix(policy, missed, mix)["targets"]["0.95"]["holds"] == "no"


def test_the_interval_covers_the_truth_of_the_mix(policy):
    """Of forty samples of another mix, at most a few intervals may miss the value of many questions."""
    mix = {"sums/easy": 0.6, "code/tracing": 0.1, "facts/capitals": 0.3}
    many = replay_outcomes(synthetic_outcomes(8000, seed=50), policy.predictor, policy.rules.models)
    truth = evaluate_mix(policy, many, np.arange(8000), mix, 2, 0)["targets"]["0.95"]["quality_kept"].estimate
    covered_count = 0
    for seed in range(40):
        small_replay = replay_outcomes(synthetic_outcomes(200, seed=100 + seed), policy.predictor, policy.rules.models)
        kept_share = evaluate_mix(policy, small_replay, np.arange(200), mix, 100, 0)["targets"]["0.95"]["quality_kept"]
        covered_count += kept_share.low <= truth <= kept_share.high
    assert covered_count >= 34


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.json", '{"sums/easy": 3, "law/clauses": 1}'),
        ("m.csv", "type,share\nsums/easy, 0.75\n\nlaw/clauses,0.25\n"),
        ("m.csv", "\ufeffsums/easy,75\nlaw/clauses,25"),
    ],
)
def test_a_mix_is_read_from_json_and_csv_and_sums_to_one(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_mix(tmp_path / name, TRUTH) == {"sums/easy": 0.75, "law/clauses": 0.25}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no type has a share above 0"),
        ("{}", "no type has a share above 0"),
        ("type,share\n", "no type has a share above 0"),
        ('{"sums/easy": 0}', "no type has a share above 0"),
        ('{"sums/easy": -0.1, "law/clauses": 1}', "the share of 'sums/easy' is negative: -0.1"),
        ('{"sums/easy": "much"}', "the share of 'sums/easy' is not a number: 'much'"),
        ('{"sums/easy": "0.5"}', "is not a number"),
        ('{"sums/easy": true}', "is not a number"),
        ('{"sums/easy": NaN}', "is not a number"),
        ('{"sums/easy": 1e999}', "is not a number"),
        ('{"sums/easy": {"a": 1}}', "is not a number"),
        ('{"sums/easy": 1, "sums/easy": 2}', "occurs twice"),
        ('{"sums/easy": 1e308, "law/clauses": 1e308}', "too large"),
        ("[1]", "is not an object"),
        ("{", "is not JSON"),
        ("type,share\nsums/easy,much", "m:2: the share of 'sums/easy' is not a number: 'much'"),
        ("sums/easy,-1", "m:1: the share of 'sums/easy' is negative"),
        ("sums/easy", "m:1: expected type,share"),
        ("sums/easy,1\nsums/easy,1", "m:2: the type 'sums/easy' occurs twice"),
        ("poems,1", "none of its types has outcomes. Types with outcomes: code/tracing, facts/capitals"),
        ('{"sums/easy": 0, "poems": 1}', "none of its types has outcomes"),
    ],
)
def test_an_invalid_mix_names_the_place_and_the_error(tmp_path, text, message):
    (tmp_path / "m").write_text(text)
    with pytest.raises(InputError) as error:
        read_mix(tmp_path / "m", TRUTH)
    assert message in str(error.value)


def test_an_unreadable_mix_is_an_input_error(tmp_path):
    (tmp_path / "m").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "m", tmp_path / "none", tmp_path):
        with pytest.raises(InputError):
            read_mix(path, TRUTH)


def test_evaluate_reports_a_mix_and_warns_of_unknown_types(policy, fresh, tmp_path):
    write_policy(policy, tmp_path / "policy")
    write_outcomes([*fresh[:200], *synthetic_outcomes(3, seed=4, truth={"sums/easy": (1, 1)})], tmp_path / "o.jsonl")
    (tmp_path / "m.json").write_text('{"sums/easy": 0.8, "law/clauses": 0.1, "poems": 0.1}')
    options = ("evaluate", "--policy", tmp_path / "policy", "--outcomes", tmp_path / "o.jsonl", "--rounds", "20")
    result = calibration(*options, "--mix", tmp_path / "m.json", "--json")
    assert result.returncode == 0, result.stderr
    assert result.stderr.strip() == (
        "warning: 10.0% of the mix are types without outcomes, counted as sent to the strong model: poems"
    )
    mix = json.loads(result.stdout)["mix"]
    assert mix["missing"] == {"types": ["poems"], "share": 0.1} and mix["n"] == 103
    assert set(mix["targets"]["0.95"]) == {"promise", "quality_kept", "saved_cost", "holds"}
    completed = calibration(*options, "--mix", tmp_path / "m.json")
    assert "the mix, on 103 questions" in completed.stdout and "still holds" in completed.stdout
    assert "mix" not in json.loads(calibration(*options, "--json").stdout)
    (tmp_path / "m.json").write_text('{"sums/easy": -1}')
    refused = calibration(*options, "--mix", tmp_path / "m.json")
    assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1 and "negative" in refused.stderr


def test_the_mix_of_recorded_traffic_is_read_from_the_usage_tables(tmp_path):
    now = datetime(2026, 11, 27, tzinfo=UTC)
    nanoseconds = int(now.timestamp() * 1e9)
    ledger = Ledger(f"sqlite:///{tmp_path / 'usage.db'}", PriceBook({}, {}), lambda _: None)
    requests = [("sums/easy", 1), ("sums/easy", 2), ("law/clauses", 3), ("sums/easy", 9), ("", 1)]
    ledger.write(
        [
            make_record(number, started_unix_ns=nanoseconds - days * 86_400 * 10**9, question_type=name)
            for number, (name, days) in enumerate(requests)
        ]
        + [make_record(99, started_unix_ns=nanoseconds - 10**9, question_type="law/clauses", simulated=True)]
    )
    assert load_mix("ledger:7d", TRUTH, now, tmp_path) == {"sums/easy": 2 / 3, "law/clauses": 1 / 3}
    assert load_mix("ledger:2w", TRUTH, now, tmp_path)["sums/easy"] == 3 / 4


@pytest.mark.parametrize(("text", "message"), [("ledger:soon", "7d"), ("ledger:7d", "cannot be read")])
def test_a_ledger_without_a_mix_is_a_clear_error(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_mix(text, TRUTH, datetime.now(UTC), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_quality_kept_by_a_mix_is_the_mean_of_its_types():
    kept_share = {"safe": Interval(0.98, 1.0, 1.02), "risky": Interval(0.86, 0.9, 0.94)}
    evidence = {
        name: Evidence("measured", 50, {"cheap": ALL_QUALITY, "strong": ALL_QUALITY}, Interval(-0.1, 0.0, 0.1), {})
        for name in kept_share
    }
    rule = Rule(0.97, 1.0, True, 100, 0.95, ALL_QUALITY, kept_by_type=kept_share)
    models = tuple(Model(name, Price(1.0, 1.0, None)) for name in ("cheap", "strong"))
    rules = Rules(models, evidence, (rule,))
    even_mix = quality_kept_by_mix(rules, 0.97, {"safe": 50, "risky": 50})
    assert even_mix.estimate == pytest.approx(0.95) and even_mix.low == pytest.approx(0.95 - np.hypot(0.02, 0.04) / 2)
    assert target_support(even_mix, 0.97) == "no"
    assert target_support(quality_kept_by_mix(rules, 0.97, {"safe": 5}), 0.97) == "shown"
    assert target_support(quality_kept_by_mix(rules, 0.97, {"safe": 75, "risky": 25}), 0.97) == "expected"
    # an unknown type goes to the strong model, which keeps its quality
    assert quality_kept_by_mix(rules, 0.97, {"risky": 50, "unheard/of": 50}).estimate == pytest.approx(0.95)
    assert quality_kept_by_mix(rules, 0.97, {}) is None and quality_kept_by_mix(rules, 0.999, {"safe": 1}) is None

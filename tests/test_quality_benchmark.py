import gzip
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_outcomes import TRUTH, synthetic_outcomes

from calibration.learning.duplicates import near_duplicate_groups
from calibration.learning.learning import build_examples
from calibration.policies import DATA

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import certificate
import everyday
import forms
import prediction
import quality
import ranking
import tables

PAIR = ("gpt-4o-mini", "gpt-4o")


@pytest.fixture(scope="module")
def population():
    outcomes = synthetic_outcomes(900, seed=5)
    return certificate.Population(outcomes, near_duplicate_groups([outcome.text for outcome in outcomes]))


def test_near_duplicates_are_on_one_side_of_a_resplit(population):
    twice = certificate.Population([*population.outcomes, *population.outcomes], np.tile(population.groups, 2))
    for scenario in ("mixed", "balanced"):
        drawn_rows, others = certificate.draw(twice, scenario, 300, np.random.default_rng(0))
        assert len(drawn_rows) == 300
        assert len(others) > 900
        assert not np.isin(twice.groups[others], twice.groups[drawn_rows]).any()


def test_a_balanced_draw_has_equal_counts_and_weights_per_type(population):
    rows = [i for i, outcome in enumerate(population.outcomes) if outcome.question_type == "sums/easy" or i % 3 == 0]
    uneven = certificate.Population([population.outcomes[i] for i in rows], population.groups[rows])
    drawn_rows, others = certificate.draw(uneven, "balanced", 120, np.random.default_rng(0))
    types = [uneven.outcomes[i].question_type for i in drawn_rows]
    assert {types.count(question_type) for question_type in TRUTH} == {30}
    weights = certificate.weights_of(uneven, "balanced", others)
    by_type = [
        sum(
            weight
            for weight, i in zip(weights, others, strict=True)
            if uneven.outcomes[i].question_type == question_type
        )
        for question_type in TRUTH
    ]
    assert by_type == pytest.approx([1.0] * 4)


def test_a_promise_is_measured_on_held_out_questions(population):
    rows = certificate.measure(population, "mixed", 300, resplits=1)
    assert [row["target"] for row in rows] == list(certificate.TARGETS)
    for row in rows:
        assert 0.8 < row["kept"] <= 1.1
        assert 0 <= row["saved"] < 1
        assert row["by_a_point"] <= row["violated"]
        assert row["violated"] == (row["kept"] < row["target"])  # of one resplit


def test_the_baseline_and_the_router_both_learn_synthetic_outcomes():
    examples = build_examples(synthetic_outcomes(900, seed=6), PAIR)
    train, new = examples.subset(np.arange(600)), examples.subset(np.arange(600, 900))
    hard = np.array([question_type == "law/clauses" for question_type in new.types])
    for gaps in (ranking.baseline(train, new.features), ranking.router(train, new.features, PAIR)):
        assert gaps[hard].mean() > gaps[~hard].mean() + 0.1


def test_labelled_rows_are_drawn_in_whole_groups():
    groups = np.repeat(np.arange(100), np.arange(100) % 3 + 1)
    drawn_rows, others = ranking.draw_rows(groups, 60, seed=1)
    assert 60 <= len(drawn_rows) < 63
    assert not np.isin(groups[drawn_rows], groups[others]).any()
    assert sorted([*drawn_rows, *others]) == list(range(len(groups)))


def test_the_router_ranks_as_it_decides_and_the_baseline_has_its_guards():
    ranked = ranking.gpt4o_pair(synthetic_outcomes(400, seed=7), synthetic_outcomes(200, seed=8), seeds=1)
    router, baseline = (ranked.per_usd[method][0] for method in ranking.METHODS)
    assert (np.isinf(router) == np.isinf(baseline)).all()
    assert np.isfinite(router).mean() > 0.5
    assert not np.allclose(router[np.isfinite(router)], baseline[np.isfinite(baseline)])
    curve = ranking.curve(ranked, "router")
    assert curve[-1] == pytest.approx((0.0, 1.0))  # all of the dollars keep all of the quality


def test_training_questions_are_not_measured():
    ranks = np.array([[np.nan, 0.5, 0.1], [0.3, np.nan, 0.2]])
    mean_count = ranking._mean(lambda g, s: float(len(g)), ranks, np.arange(3), np.zeros((3, 2)))
    assert mean_count == 2


def test_a_prediction_of_the_shipped_policy_costs_little():
    figures = prediction.measure(DATA / "policy", None)
    assert figures["predict_ms"]["median"] < 3  # the limit is 0.3 on an idle machine; this one may be busy
    assert figures["long_prompt_ms"] < 20
    assert not figures["resident_mb"] > 60


def test_a_section_of_the_page_is_replaced_and_a_missing_one_is_named():
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb"
    assert quality.fill_section(quality.fill_section(page, {"x": "new"}), {"x": "newer"}) == (
        "a\n<!-- x -->\n\nnewer\n\n<!-- /x -->\nb"
    )
    with pytest.raises(SystemExit, match="no place <!-- y -->"):
        quality.fill_section(page, {"y": "new"})


def shipped_results(interval=(0.6, 0.65, 0.7), certified=True, saved=0.4):
    target = {"certified": certified, "quality_kept": (0.97, 0.98, 0.99), "strong_calls": 0.5}
    targets = {"0.97": {**target, "saved_cost": interval}, "0.99": {**target, "saved_cost": (saved, saved, saved)}}
    pair = {"apgr": dict.fromkeys((*ranking.METHODS, "difference"), (0.6, 0.65, 0.7))}
    return {"pair": pair, "routellm": {"mmlu": pair, "gsm8k": pair}}, {"targets": targets}


def test_goals_compare_saved_cost_and_kept_quality():
    met = tables.goals_table(*shipped_results())
    assert "decisions at 97 % save at least 0.60 | .650 (.600 to .700) | yes" in met
    assert "99 % is certified and saves something | certified, saved .400 (.400 to .400) | yes" in met
    assert "MMLU, APGR at least 0.64 | .650 (.600 to .700) | yes" in met
    assert "GSM8K, APGR at least 0.66 | .650 (.600 to .700) | no" in met
    assert "save at least 0.60 | .590 (.500 to .700) | no" in tables.goals_table(*shipped_results((0.5, 0.59, 0.7)))
    for short in (shipped_results(certified=False), shipped_results(saved=0.0)):
        assert "| no |" in next(line for line in tables.goals_table(*short).splitlines() if "99 %" in line)


def test_an_unmeasured_section_of_the_page_says_so():
    assert set(tables.parts_of({}).values()) == {tables.NOT_MEASURED}


def test_the_page_matches_the_stored_results():
    if not (quality.FOLDER / "results.json").is_file():
        pytest.skip("the results have not been measured here")
    results = json.loads((quality.FOLDER / "results.json").read_text())
    page = quality.PAGE.read_text()
    for name, text in tables.parts_of(results).items():
        assert f"<!-- {name} -->\n\n{text}\n\n<!-- /{name} -->" in page, name


def write_outcomes(outcomes, path, models):
    with gzip.open(path, "wt") as file:
        for outcome in outcomes:
            told = {
                model: {
                    "score": result.score,
                    "input_tokens": result.input_tokens,
                    "output_tokens": result.output_tokens,
                }
                for model, result in zip(models, outcome.results.values(), strict=True)
            }
            row = {
                "id": outcome.id,
                "source": outcome.source,
                "question_type": outcome.question_type,
                "messages": outcome.messages,
                "outcomes": told,
            }
            file.write(json.dumps(row) + "\n")


FORMS = """
def louder(row):
    *before, last = row["messages"]
    return {**row, "messages": [*before, {**last, "content": last["content"] + "!"}]}

FORMS = {"bare": (lambda row: row, 1.0), "louder": (louder, 0.9)}
"""


def test_every_section_of_the_page_is_measured_and_written(tmp_path, monkeypatch, capsys):
    data, page = tmp_path / "data", tmp_path / "quality.md"
    data.mkdir()
    (tmp_path / "forms.py").write_text(FORMS)
    write_outcomes(synthetic_outcomes(300, seed=1), data / "calibration.jsonl.gz", PAIR)
    write_outcomes(synthetic_outcomes(300, seed=2), data / "test.jsonl.gz", PAIR)
    published = [
        replace(outcome, source=f"routellm/{source}")
        for seed, (source, n) in enumerate({"mmlu": 240, "gsm8k": 80, "mt_bench": 40}.items())
        for outcome in synthetic_outcomes(n, seed=10 + seed)
    ]
    write_outcomes(published, data / "routellm.jsonl.gz", ranking.ROUTELLM)
    page.write_text("".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in tables.PLACES))
    for owner, name, value in (
        (quality, "PAGE", page),
        (quality, "FOLDER", tmp_path / "quality"),
        (ranking, "MMLU_ROWS", 120),
        (certificate, "SCENARIOS", ("mixed",)),
        (certificate, "SIZES", (100,)),
    ):
        monkeypatch.setattr(owner, name, value)
    small = ["--data", str(data), "--seeds", "1", "--rounds", "5", "--resplits", "1"]
    monkeypatch.setattr(sys, "argv", ["quality", *small, "--forms", str(tmp_path / "none.py")])
    assert quality.main() == 0
    assert "skipped: the forms" in capsys.readouterr().out
    before = page.read_text()
    assert before.count(tables.NOT_MEASURED) == 1
    monkeypatch.setattr(sys, "argv", ["quality", *small, "--forms", str(tmp_path / "forms.py"), "--only", "forms"])
    assert quality.main() == 0
    assert tables.NOT_MEASURED not in page.read_text()
    rows = json.loads((tmp_path / "quality" / "results.json").read_text())["forms"]
    assert [row["form"] for row in rows] == ["bare", "louder"]
    assert (rows[0]["flips"], rows[0]["n"]) == (0.0, 300)
    assert (tmp_path / "quality" / "curve.svg").is_file()


def test_the_decisions_on_everyday_prompts_are_shown(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["everyday", "--out", str(tmp_path / "everyday.md")])
    everyday.main()
    rows = [line for line in (tmp_path / "everyday.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(everyday.PROMPTS) == 61
    assert all(len(row.replace("\\|", "").split(" | ")) == 6 for row in rows)


def test_without_recorded_outcomes_the_benchmarks_report_that_they_skip(tmp_path, monkeypatch, capsys):
    nowhere = str(tmp_path / "none.jsonl.gz")
    for script, arguments in (
        (quality, ["--data", str(tmp_path)]),
        (ranking, [str(tmp_path)]),
        (certificate, [str(tmp_path)]),
        (forms, [nowhere, nowhere]),
    ):
        monkeypatch.setattr(sys, "argv", ["script", *arguments])
        assert script.main() == 0
        assert "skipped" in capsys.readouterr().out

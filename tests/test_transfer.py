"""A pair of models without a calibration is served by a policy transferred from another pair, without certificates."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import httpx2
import pytest
from command_line import run

from calibration.policies import DATA
from router.commands.doctor.finding import State
from router.commands.doctor.machine import policy_and_prices
from router.policy.decision import decide
from router.policy.document import DOCUMENT, WEIGHTS, dump, parse
from router.policy.features import read_question
from router.policy.models import model_named
from router.policy.prediction import predict
from router.policy.rules import Promise
from router.policy.transfer import TransferError, transfer_policy
from router.serving.policy import catalogue, policy_folder, prices, read_policy, served_policy
from router.settings import SettingsError, load

NEW = ("gpt-6-luna", "gpt-6-sol")
PAIRS = [NEW, ("gpt-6-luna:none", "gpt-6-sol:none"), ("gpt-5.4-nano", "gpt-5.4"), ("gpt-4.1-mini", "gpt-4.1")]
SHIPPED = DATA / "policy"
TARGETS = (0.9, 0.95, 0.97, 0.99)


def models(settings, *names):
    book = prices(settings)
    return [model_named(name, book, catalogue(book.aliases)) for name in names]


def transfer_to(policy, *names):
    return transfer_policy(policy, *models(load(), *names))


@pytest.fixture(scope="module")
def policy():
    return read_policy(SHIPPED)


@pytest.fixture(scope="module")
def predicted_questions(policy):
    """Three hundred questions of all types with the shipped policy's features and predictions."""
    rows = [json.loads(line) for line in (DATA / "questions.jsonl").read_text().splitlines()]
    lines = [row["question"] for row in rows if "question" in row]
    for path in sorted((DATA / "requests").iterdir()):
        lines += [json.loads(line)["text"] for line in path.read_text().splitlines()]
    features = [read_question([{"role": "user", "content": text}]) for text in lines[:: len(lines) // 300]]
    return [(question_features, predict(policy.predictor, question_features)) for question_features in features]


@pytest.mark.parametrize("pair", PAIRS, ids=",".join)
def test_a_transferred_policy_certifies_nothing_and_its_evidence_names_the_origin(policy, pair):
    transferred = transfer_to(policy, *pair)
    assert [model.name for model in transferred.rules.models] == list(pair)
    assert not any(rule.certified or rule.n or rule.kept_by_type for rule in transferred.rules.targets)
    assert {rule.promise for rule in transferred.rules.targets} == {Promise.EXPECTED}
    assert all(0 <= rule.expected_saving.low <= rule.expected_saving.high <= 1 for rule in transferred.rules.targets)
    for kind, known in transferred.rules.evidence.items():
        before = policy.rules.evidence_of(kind)
        assert known.kind == {"measured": "transferred", "published": "transferred", "none": "none"}[before.kind]
        assert known.source.startswith("transferred from gpt-4o-mini and gpt-4o, policy " + policy.version)
        assert set(known.quality) <= set(pair) and set(known.output_tokens) <= set(pair)
        assert list(known.quality.values()) == list(before.quality.values())
    assert transferred.about["transferred_from"] == {"policy": policy.version, "models": ["gpt-4o-mini", "gpt-4o"]}


@pytest.mark.parametrize("pair", PAIRS, ids=",".join)
def test_the_same_questions_go_to_the_cheap_model(policy, predicted_questions, pair):
    transferred = transfer_to(policy, *pair)
    names = dict(zip(("gpt-4o-mini", "gpt-4o"), pair, strict=True))
    assert len(predicted_questions) >= 300
    for target in TARGETS:
        same = cheap_count = 0
        for features, prediction in predicted_questions:
            old = decide(policy.rules, features, prediction, target)
            new = decide(transferred.rules, features, predict(transferred.predictor, features), target)
            same += new.model == names[old.model]
            cheap_count += old.model == "gpt-4o-mini"
            assert new.promise in (Promise.EXPECTED, None)
        assert same >= 0.95 * len(predicted_questions), (target, same)
        assert 0 < cheap_count < len(predicted_questions)  # otherwise the test would prove nothing


def test_a_transferred_policy_round_trips_through_its_files(policy):
    transferred = transfer_to(policy, *NEW)
    files = dump(transferred)
    again = parse(files)
    assert again.version == parse(dump(transfer_to(policy, *NEW))).version != policy.version
    assert again.rules.targets == transferred.rules.targets and again.rules.evidence == transferred.rules.evidence
    assert dump(again) == files


def test_a_transferred_policy_can_be_transferred_again(policy):
    twice = transfer_to(transfer_to(policy, *NEW), "gpt-4o-mini", "gpt-4o")
    for rule, before in zip(twice.rules.targets, policy.rules.targets, strict=True):
        assert rule.quality_per_usd == pytest.approx(before.quality_per_usd)
    assert {known.kind for known in twice.rules.evidence.values()} <= {"transferred", "none"}


def test_only_pairs_that_save_cost_are_accepted(policy):
    with pytest.raises(TransferError, match="gpt-6-sol is not cheaper than gpt-6-luna; name the cheap model first"):
        transfer_to(policy, *reversed(NEW))
    single_model = models(load(), "gpt-6-luna")[0]
    with pytest.raises(TransferError, match="not cheaper"):
        transfer_policy(policy, single_model, single_model)
    three_models = replace(policy, rules=replace(policy.rules, models=(*policy.rules.models, single_model)))
    with pytest.raises(TransferError, match="only a pair is transferred"):
        transfer_policy(three_models, *models(load(), *NEW))


# as a setting


def settings_of(tmp_path, *pair, **three_models):
    return load(home=tmp_path / "home", pair=pair, **three_models)


def test_a_pair_is_served_from_the_home_folder(tmp_path):
    settings = settings_of(tmp_path, *NEW)
    policy, problem = served_policy(settings)
    assert [model.name for model in policy.rules.models] == list(NEW) and problem == ""
    folder = policy_folder(settings)
    assert folder == settings.home / "policies" / policy.version
    assert policy_folder(settings) == folder
    assert sorted(path.name for path in folder.iterdir()) == sorted([DOCUMENT, WEIGHTS])
    assert [path.name for path in (settings.home / "policies").iterdir()] == [policy.version]
    other = load(home=tmp_path / "other", pair=NEW)
    assert policy_folder(other) == other.home / "policies" / policy.version


def test_the_policys_own_pair_is_not_transferred(tmp_path, policy):
    settings = settings_of(tmp_path, "gpt-4o-mini", "gpt-4o")
    assert policy_folder(settings) == SHIPPED.resolve()
    assert served_policy(settings)[0].version == policy.version


def test_a_removed_folder_is_created_again(tmp_path):
    settings = settings_of(tmp_path, *NEW)
    folder = policy_folder(settings)
    (folder / DOCUMENT).unlink()
    (folder / WEIGHTS).unlink()
    folder.rmdir()
    assert (policy_folder(settings) / DOCUMENT).exists()


def test_versions_are_equal_in_every_process(tmp_path):
    served = served_policy(settings_of(tmp_path, *NEW))[0].version
    code = "from router.serving.policy import served_policy; from router.settings import load; "
    code += "print(served_policy(load())[0].version)"
    for seed in ("1", "2"):
        env = os.environ | {"ROUTER_HOME": str(tmp_path / seed), "ROUTER_PAIR": ",".join(NEW), "PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == served


def promote(settings, policy):
    """Replace the promoted policy."""
    folder = settings.home / "policies" / "made"
    folder.mkdir(parents=True)
    for name, content in dump(policy).items():
        (folder / name).write_bytes(content)
    (settings.home / "policy").symlink_to(folder)
    return folder


def test_a_promoted_policy_of_the_configured_pair_is_served(tmp_path, policy):
    settings = settings_of(tmp_path, *NEW)
    calibrated = transfer_to(policy, *NEW)
    calibrated.about["made_at"] = "of its own"
    folder = promote(settings, calibrated)
    assert policy_folder(settings) == folder
    assert served_policy(settings)[0].about["made_at"] == "of its own"


def test_a_promoted_policy_of_another_pair_is_transferred(tmp_path, policy):
    settings = settings_of(tmp_path, *NEW)
    promote(settings, transfer_to(policy, "gpt-4.1-mini", "gpt-4.1"))
    served = served_policy(settings)[0]
    assert served.about["transferred_from"]["models"] == ["gpt-4.1-mini", "gpt-4.1"]


def test_an_invalid_promoted_policy_does_not_stop_the_pair(tmp_path, policy):
    settings = settings_of(tmp_path, *NEW)
    weights = promote(settings, policy) / WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(b"broken")
    served, problem = served_policy(settings)
    assert [model.name for model in served.rules.models] == list(NEW)
    assert "cannot be read" in problem
    (finding,) = policy_and_prices(settings)
    assert finding.state is State.WARNING and "rollback" in finding.remedy
    weights.write_bytes(whole)
    again, problem = served_policy(settings)
    promoted = read_policy(settings.home / "policy")
    assert (again.about["transferred_from"]["policy"], problem) == (promoted.version, "")


def test_a_promotion_while_the_router_runs_is_applied(start_router, openai_server, policy):
    router = start_router(openai_base_url=openai_server.url, pair=NEW)
    first = httpx2.get(router.origin + "/health").json()["policy"]
    calibrated = transfer_to(policy, *NEW)
    calibrated.about["made_at"] = "of its own"
    home = router.home / "policies" / "made"
    home.mkdir()
    files = dump(calibrated)
    (home / WEIGHTS).write_bytes(b"broken")
    (home / DOCUMENT).write_bytes(files[DOCUMENT])
    (router.home / "policy").symlink_to(home)
    assert "cannot be read" in str(health_until(router, lambda health: "cannot be read" in str(health)))
    again = router.home / "policies" / "again"
    again.mkdir()
    for name, content in files.items():
        (again / name).write_bytes(content)
    (router.home / "policy").unlink()
    (router.home / "policy").symlink_to(again)
    health = health_until(router, lambda health: health["policy"] != first)
    assert health["policy"] == parse(files).version
    (router.home / "policy").unlink()
    assert health_until(router, lambda health: health["policy"] == first)["policy"] == first


def health_until(router, holds, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not holds(health := httpx2.get(router.origin + "/health").json()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return health


def test_a_promoted_policy_that_cannot_be_transferred_is_reported_and_ignored(start_router, openai_server, policy):
    router = start_router(openai_base_url=openai_server.url, pair=NEW)
    first = httpx2.get(router.origin + "/health").json()["policy"]
    cheap, strong = policy.rules.models
    flat = replace(policy, rules=replace(policy.rules, models=(replace(cheap, price=strong.price), strong)))
    promote(router.app.worker.settings, flat)
    health = health_until(router, lambda health: "saves nothing" in str(health))
    assert "ROUTER_PAIR" in str(health["warnings"]) and health["policy"] == first
    (router.home / "policy").unlink()
    assert "saves nothing" not in str(health_until(router, lambda health: "saves nothing" not in str(health)))


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (("gpt-6-luna", "no-such-model"), "'no-such-model' has no price"),
        (("gpt-6-sol", "gpt-6-luna"), "gpt-6-sol is not cheaper than gpt-6-luna; name the cheap model first"),
    ],
)
def test_a_pair_that_cannot_be_served_is_a_one_line_error(tmp_path, pair, reason):
    with pytest.raises(SettingsError) as error:
        served_policy(settings_of(tmp_path, *pair))
    (finding,) = policy_and_prices(settings_of(tmp_path, *pair))
    assert finding.state is State.PROBLEM and reason in finding.message
    assert reason in str(error.value) and "ROUTER_PAIR" in str(error.value) and "\n" not in str(error.value)
    settings = {"ROUTER_HOME": str(tmp_path / "home"), "ROUTER_PAIR": ",".join(pair)}
    for command in (["serve", "--port", "0"], ["decide", "hi"]):
        result = run("router", *command, **settings)
        assert result.returncode != 0 and reason in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr


@pytest.mark.parametrize("pair", ["gpt-6-luna", "gpt-6-luna,gpt-6-luna", "a,b,c"])
def test_a_setting_other_than_a_pair_is_refused(tmp_path, pair):
    with pytest.raises(SettingsError, match=r"ROUTER_PAIR: .*expected two models"):
        load(home=tmp_path, pair=pair)


def test_blanks_around_the_names_of_a_pair_are_ignored(tmp_path):
    assert load(home=tmp_path, pair=" gpt-6-luna , gpt-6-sol ").pair == NEW
    assert load(home=tmp_path, pair="").pair == ()


def test_decide_and_health_report_that_the_pair_was_not_measured(tmp_path, start_router, openai_server):
    settings = {"ROUTER_HOME": str(tmp_path / "home"), "ROUTER_PAIR": ",".join(NEW), "COLUMNS": "250"}
    question = "Tom has 3 apples and buys 5 more. How many apples does Tom have now?"
    output = run("router", "decide", question, **settings).stdout
    assert "(expected)" in output and "evidence: transferred" in output and "gpt-6-" in output
    router = start_router(openai_base_url=openai_server.url, pair=NEW)
    health = httpx2.get(router.origin + "/health").json()
    assert any("gpt-6-luna,gpt-6-sol were not measured" in warning for warning in health["warnings"])
    assert health["policy"] in output
    answer = httpx2.post(
        router.url + "/chat/completions", json={"model": "auto", "messages": [{"role": "user", "content": question}]}
    )
    assert answer.headers["x-router-promise"] == "expected"
    assert answer.headers["x-router-evidence"].startswith("transferred; n=")
    assert answer.headers["x-router-model"] in NEW

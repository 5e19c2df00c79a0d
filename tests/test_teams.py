"""Teams are keys that share limits: the limits of the key and of its team apply to each request."""

import asyncio
import json
import os
import time

import pytest
from command_line import run
from fake_openai import completion, json_reply
from running import RunningRouter
from synthetic_records import make_record
from test_alerts import OneAccount, RecordedAlerts
from test_keys import OWNER, UPSTREAM, ask, change_roster, create_key, create_team
from test_limits import ADA, ANSWER_USD, NOON, TEAM, account, big_stream, chat, rate_headers
from waiting import until

from router.client import issuing, keystore
from router.client.keyfile import Limits, Owner, read_roster
from router.exporter.shipper import Shipper
from router.exporter.shipping import drain
from router.exporter.traces import spans
from router.limits.account import Account
from router.limits.booking import hold
from router.limits.bound import Most
from router.limits.budgets import Budgets
from router.limits.spent import spent
from router.server import run as serve_command
from router.serving.policy import prices
from router.settings import KEYS_FILE, SettingsError
from router.usage.ledger import Ledger


@pytest.fixture
def grouped(start_router, openai_server, tmp_path):
    """A function that starts a router with an admin and a team of keys `ada` and `bob`; returns router and keys."""

    def start(ada=None, **limits):
        home = tmp_path / "home-0"
        create_team(home, "research", **limits)
        keys = [create_key(home, "ada", team="research", limits=ada), create_key(home, "bob", team="research")]
        return start_router(openai_base_url=openai_server.url, api_keys=[OWNER], **UPSTREAM), *keys

    return start


def export(router):
    """Export the journal to the usage tables."""
    settings = router.app.worker.settings
    drain([Shipper(router.home / "journal", "usage", Ledger(settings.usage_url, prices(settings), lambda _: None))])


def error_of(answer):
    return answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["message"]


# limits of a request


def test_the_budgets_of_key_and_team_apply_and_the_error_names_which(grouped, openai_server):
    router, ada, bob = grouped(ada=Limits(usd_a_day=1.5 * ANSWER_USD), usd_a_day=2.5 * ANSWER_USD)
    openai_server.enqueue(*(big_stream() for _ in range(2)))
    assert chat(router, ada, stream=True).status_code == 200
    status, code, message = error_of(chat(router, ada))
    assert (status, code) == (429, "insufficient_quota") and "key ada has spent $0.04" in message
    assert chat(router, bob, stream=True).status_code == 200
    status, code, message = error_of(chat(router, bob))
    assert (status, code) == (429, "insufficient_quota") and "team research has spent $0.08" in message
    key, team = account(router), account(router, TEAM)
    assert (key.day.spent_usd, team.day.spent_usd) == pytest.approx((ANSWER_USD, 2 * ANSWER_USD))
    assert key.day.held_usd == team.day.held_usd == 0.0
    assert [(record["key_id"], record["team"]) for record in router.records(4)[::2]] == [
        (n, "research") for n in ("ada", "bob")
    ]


def test_a_request_rejected_by_the_team_does_not_count_for_the_key():
    key, team = Account(ADA, NOON), Account(TEAM, NOON)
    key.limit(Limits(usd_a_day=1.0, requests_a_minute=5, tokens_a_minute=1000))
    team.limit(Limits(usd_a_day=0.5, requests_a_minute=3))
    with pytest.raises(Exception, match="team research has spent"):
        hold([key, team], Most(0.75, 10, 10), NOON)
    booking = hold([key, team], Most(0.25, 10, 10), NOON)
    assert (key.day.held_usd, team.day.held_usd) == (0.25, 0.25)
    assert dict(booking.rates())[b"x-ratelimit-remaining-requests"] == b"2"  # of the team, which has less left
    assert dict(booking.rates())[b"x-ratelimit-remaining-tokens"] == b"990"  # of the key, the only one with limits
    usage = {"input_tokens": 5, "output_tokens": 5}
    record = make_record(0, cost_usd=None, usage=usage, wasted=[{"model": "x", "usage": None, "cost_usd": None}])
    booking.settle(record)
    booking.settle(record)
    assert record.kept_usd == 0.5 == key.day.spent_usd == team.day.spent_usd  # once, and not for each account
    assert dict(hold([key], Most(0.0, 0, 0), NOON).rates())[b"x-ratelimit-remaining-requests"] == b"3"


def test_the_keys_of_a_team_share_its_rate_and_the_lowest_is_reported(grouped, openai_server):
    router, ada, bob = grouped(ada=Limits(requests_a_minute=10), requests_a_minute=3)
    remaining = [rate_headers(chat(router, key))["x-ratelimit-remaining-requests"] for key in (ada, bob, ada)]
    assert remaining == ["2", "1", "0"]
    response = chat(router, bob)
    assert error_of(response)[2].startswith("Rate limit reached for team research on requests per min (RPM): Limit 3")
    assert response.headers["x-ratelimit-limit-requests"] == "3" and len(openai_server.received) == 3


def test_auto_uses_the_lower_floor_of_key_and_team(grouped, openai_server):
    router, ada, bob = grouped(ada=Limits(usd_a_day=1.0, floor=0.999), usd_a_day=1.0, floor=0.5)

    def ask_with_key(key):
        answer = chat(router, key, "auto@1")
        return answer.headers["x-router-model"], answer.headers["x-router-reason"]

    assert ask_with_key(ada)[0] == ask_with_key(bob)[0] == "gpt-4o"
    account(router, TEAM).day.spent_usd = 0.8
    assert ask_with_key(ada) == ask_with_key(bob) == ("gpt-4o-mini", "budget")
    account(router, TEAM).day.spent_usd = 0.0
    account(router).day.spent_usd = 0.8
    assert ask_with_key(bob)[1] != "budget" and router.records(6)[-1]["target"] == 1.0


# spending survives a restart


def test_after_a_restart_a_team_has_the_spending_of_all_its_keys(grouped, openai_server):
    router, ada, bob = grouped(usd_a_day=1.0)
    openai_server.enqueue(*(big_stream() for _ in range(3)), big_stream(usage=False))
    for number, key in enumerate((ada, bob, ada, bob)):
        assert chat(router, key, stream=True).status_code == 200
        if number == 1:  # two records are in the tables and two only in the journal
            router.records(2)
            export(router)
    before = account(router, TEAM).day.spent_usd
    assert before == pytest.approx(3 * ANSWER_USD + router.records(4)[3]["kept_usd"]) and before > 0.16
    router.close()
    change_roster(router.home, issuing.revoke, "ada", time.time())
    change_roster(router.home, issuing.set_limits, "bob", {}, "")
    other = create_key(router.home, "eve", team="research")
    again = RunningRouter(router.home, openai_base_url=openai_server.url, **UPSTREAM)
    try:
        assert chat(again, bob, max_tokens=1).status_code == 200  # it left the team, which keeps its spending
        assert chat(again, other, max_tokens=1).status_code == 200
        last = again.records(6)[-1]["cost_usd"]
        assert account(again, TEAM).day.spent_usd == pytest.approx(before + last)
    finally:
        again.close()


def test_the_spending_of_a_moved_key_stays_with_its_former_team(grouped, openai_server):
    router, ada, _ = grouped(usd_a_day=1.0)
    create_team(router.home, "sales", usd_a_day=1.0)
    openai_server.enqueue(big_stream())
    assert chat(router, ada, stream=True).status_code == 200
    change_roster(router.home, issuing.set_limits, "ada", {}, "sales")
    assert until(
        lambda: chat(router, ada, max_tokens=1).status_code == 200 and router.records(1)[-1]["team"] == "sales"
    )
    assert account(router, TEAM).day.spent_usd >= ANSWER_USD
    assert account(router, Owner("team", "sales")).day.spent_usd < ANSWER_USD / 10


def test_an_open_request_counts_against_a_new_team_budget(grouped, openai_server):
    router, ada, bob = grouped(ada=Limits(usd_a_day=1.0))
    openai_server.enqueue(big_stream(wait=2.0))

    async def send_both():
        slow = asyncio.create_task(asyncio.to_thread(chat, router, ada, stream=True))
        while len(openai_server.received) < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        keystore.limit_team(router.app.worker.settings, "research", {"usd_a_day": "1"})
        while TEAM not in router.app.worker.limiter.accounts:
            await asyncio.to_thread(chat, router, bob, max_tokens=1)
        return await slow

    assert asyncio.run(send_both()).status_code == 200
    records = [record for record in router.records(2) if TEAM in router.app.worker.limiter.accounts]
    total = sum(record["cost_usd"] for record in records)
    assert account(router).day.spent_usd == pytest.approx(ANSWER_USD)
    assert account(router, TEAM).day.spent_usd == pytest.approx(total)


def test_a_request_that_ends_while_its_account_is_read_counts_once(grouped, openai_server):
    """The record is written after the ledger was read, while a thread reads the journal."""
    router, ada, _ = grouped(usd_a_day=1.0)
    limiter, now = router.app.worker.limiter, time.time_ns()
    record = make_record(0, key_id="bob", team="research", started_unix_ns=now, ended_unix_ns=now, cost_usd=0.25)
    assert chat(router, ada, max_tokens=1).status_code == 200  # opens the account, and reads the ledger
    limiter.settle(record, None)
    router.app.worker.journal.append(record)
    expected = 0.25 + next(row["cost_usd"] for row in router.records(2) if row["key_id"] == "ada")
    assert account(router, TEAM).day.spent_usd == pytest.approx(expected)
    opened = account(router, TEAM)
    bounds = opened.day.starts_unix_ns, opened.month.starts_unix_ns
    journal, url = router.home / "journal", router.app.worker.settings.usage_url
    assert (
        spent(url, journal, TEAM, *bounds, opened.since_unix_ns).day_usd == 0.0
    )  # read again, it is not counted twice
    assert spent(url, journal, TEAM, *bounds, time.time_ns()).day_usd == pytest.approx(expected)


# visibility


def test_usage_records_traces_and_metrics_contain_the_team(grouped, openai_server):
    router, ada, bob = grouped(usd_a_day=1.0, usd_a_month=5.0)
    solo = create_key(router.home, "solo")
    assert until(lambda: chat(router, solo).status_code == 200)
    cost = completion("gpt-4o", prompt_tokens=1000, completion_tokens=10)
    openai_server.enqueue(*(json_reply(cost) for _ in range(3)))
    for key in (ada, bob, bob):
        assert chat(router, key).status_code == 200
    records = [record for record in router.records(4) if record["team"]]
    team_usd = sum(record["cost_usd"] for record in records)
    export(router)
    rows = ask(router, "/router/usage?group_by=team", OWNER).json()["rows"]
    assert [(row["team"], row["requests"]) for row in rows] == [("", 1), ("research", 3)]
    output = run("router", "usage", "--group-by", "team,key", ROUTER_HOME=str(router.home)).stdout
    assert "research" in output and "bob" in output
    own_usage = ask(router, "/router/usage?group_by=key", ada).json()
    assert [row["key"] for row in own_usage["rows"]] == ["ada"] and "calibration_usd" not in own_usage["total"]
    assert own_usage["team"]["name"] == "research" and "bob" not in json.dumps(own_usage)
    assert own_usage["team"]["usd_left_today"] == pytest.approx(1.0 - team_usd)
    assert own_usage["team"]["usd_left_this_month"] == pytest.approx(5.0 - team_usd)
    assert "team" not in ask(router, "/router/usage", solo).json() and "team" not in rows[0].get("total", {})
    assert {
        (recent_request["key"], recent_request["team"])
        for recent_request in ask(router, "/router/recent", OWNER).json()["requests"]
    } == {*(("ada", "research"), ("bob", "research"), ("solo", None))}
    metrics = ask(router, "/metrics", OWNER).text
    assert 'router_team_requests_total{team="research"} 3.0' in metrics and 'team=""' not in metrics
    assert 'router_team_cost_usd_total{team="research"}' in metrics
    (root, *_) = spans(make_record(0, key_id="ada", team="research"), router.app.worker.prices)
    assert {
        recent_request.value.string_value for recent_request in root.attributes if "router.team" in recent_request.key
    } == {"research"}


def test_alerts_distinguish_a_team_from_a_key_of_the_same_name():
    now, recorded_alerts = time.time_ns(), RecordedAlerts()
    limiter = OneAccount(now, usd_a_day=10.0)
    team = limiter.accounts[Owner("team", "ada")] = Account(Owner("team", "ada"), now)
    team.limit(Limits(usd_a_day=10.0))
    limiter.day.spent_usd = team.day.spent_usd = 8.0
    budgets = Budgets(limiter, recorded_alerts)
    budgets.look()
    assert [row[0] for row in recorded_alerts] == ["ada", "team ada"]
    team.day.spent_usd = 9.9
    budgets.refused(("team", "ada"))
    budgets.look()
    assert [row[:3] for row in recorded_alerts[2:]] == [("team ada", "day", 1.0)]


def test_a_team_that_spends_its_budget_alerts(grouped, openai_server):
    router, ada, bob = grouped(usd_a_day=2.2 * ANSWER_USD)
    openai_server.enqueue(*(big_stream() for _ in range(2)))
    assert [chat(router, key, stream=True).status_code for key in (ada, bob, ada)] == [200, 200, 429]

    def warnings():
        return ask(router, "/router/overview", OWNER).json()["warnings"]

    assert until(lambda: any("team research has spent $0.08" in line for line in warnings()))


# commands and HTTP


def test_the_command_adds_limits_lists_and_removes_teams(tmp_path):
    def router(*arguments):
        return run("router", *arguments, ROUTER_HOME=str(tmp_path), COLUMNS="200")

    result = router("teams", "add", "research", "--usd-a-day", "20", "--requests-a-minute", "600")
    assert (result.returncode, result.stdout) == (0, "") and "$20 a day" in result.stderr
    assert router("keys", "add", "ada", "--team", "research").returncode == 0
    assert router("keys", "add", "bob").returncode == 0
    assert router("keys", "limit", "bob", "--team", "research").stderr.endswith("and is in team research\n")
    assert router("teams", "limit", "research", "--usd-a-month", "200", "--usd-a-day", "none").returncode == 0
    (told_of,) = json.loads(router("teams", "list", "--json").stdout)
    assert (told_of["name"], told_of["state"], told_of["keys"]) == ("research", "active", ["ada", "bob"])
    assert told_of["limits"] == {"usd_a_month": 200.0, "requests_a_minute": 600}
    assert "$200 a month" in router("teams", "show", "research").stdout
    assert "research" in router("keys", "show", "ada").stdout and "research" in router("keys", "list").stdout
    for invalid_arguments, message in (
        (("keys", "add", "eve", "--team", "nobody"), "no active team is called nobody"),
        (("keys", "limit", "ada", "--team", "nobody"), "no active team is called nobody"),
        (("teams", "add", "research"), "names cannot be reused"),
        (("teams", "add", "sales", "--usd-a-day", "0"), "--usd-a-day"),
        (("teams", "add", "a b"), "a team's name"),
        (("teams", "add", "none"), "this name is reserved"),
        (("teams", "limit", "nobody"), "no team is called nobody"),
        (("teams", "remove", "research"), "active keys (ada, bob)"),
        (("teams", "show", "sk-router-" + "x" * 43), "looks like a key"),
    ):
        completed = router(*invalid_arguments)
        assert (completed.returncode, completed.stdout, completed.stderr.count("\n")) == (2, "", 1), invalid_arguments
        assert message in completed.stderr and "xxx" not in completed.stderr
    assert router("keys", "limit", "bob", "--team", "none").returncode == 0
    assert router("keys", "revoke", "ada").returncode == 0
    assert router("teams", "remove", "research").returncode == 0
    assert router("keys", "add", "eve", "--team", "research").returncode == 2
    assert router("teams", "add", "research").returncode == 2
    assert json.loads(router("teams", "list", "--json").stdout)[0]["state"] == "removed"


def test_without_redis_several_workers_reject_a_team_with_limits(tmp_path, monkeypatch):
    create_team(tmp_path, "research", usd_a_day=1.0)
    create_key(tmp_path, "ada", team="research")
    monkeypatch.setenv("ROUTER_HOME", str(tmp_path))
    with pytest.raises(SettingsError, match="team research has limits"):
        serve_command("127.0.0.1", 0, 2)


@pytest.mark.parametrize("damage", ["a team occurs twice", "an unknown team", "a team's name"])
def test_a_file_with_invalid_teams_is_rejected(tmp_path, damage):
    create_team(tmp_path, "research")
    create_key(tmp_path, "ada", team="research")
    path = tmp_path / KEYS_FILE
    document = json.loads(path.read_bytes())
    (team,) = document["teams"]
    teams = {
        "a team occurs twice": [team, team],
        "an unknown team": [],
        "a team's name": [{**team, "name": "a b"}],
    }
    path.write_text(json.dumps({**document, "teams": teams[damage]}))
    with pytest.raises(SettingsError, match=damage):
        read_roster(path)


def test_teams_are_created_limited_and_removed_over_http(grouped, openai_server):
    router, ada, _ = grouped(usd_a_day=1.0)
    response = ask(router, "/router/teams", OWNER, {"name": "sales", "usd_a_month": 5})
    assert (response.status_code, response.json()["limits"], response.json()["keys"]) == (201, {"usd_a_month": 5.0}, [])
    key = ask(router, "/router/keys", OWNER, {"name": "eve", "team": "sales"}).json()
    assert key["team"] == "sales" and chat(router, key["key"]).status_code == 200
    for path, body, method, status, param in (
        ("/sales", {"usd_a_month": "none", "usd_a_day": 0.000001}, "PATCH", 200, None),
        ("/sales", {"usd_a_day": -1}, "PATCH", 400, "usd_a_day"),
        ("/sales", {"team": "x"}, "PATCH", 400, None),
        ("/sales", None, "DELETE", 409, "name"),
        ("/nobody", None, "DELETE", 404, "name"),
        ("/nobody", None, "GET", 404, "name"),
        ("", {"name": "sales"}, "POST", 409, "name"),
    ):
        answer = ask(router, "/router/teams" + path, OWNER, body, method)
        assert answer.status_code == status, answer.text
        assert status < 400 or answer.json()["error"]["param"] == param
    assert "team sales has spent" in error_of(chat(router, key["key"]))[2]  # at once
    moved_key = ask(router, "/router/keys/eve", OWNER, {"team": "none"}, "PATCH")
    assert moved_key.json()["team"] is None and chat(router, key["key"]).status_code == 200
    assert ask(router, "/router/keys/eve", OWNER, {"team": "nobody"}, "PATCH").json()["error"]["param"] == "team"
    assert ask(router, "/router/teams/sales", OWNER, method="DELETE").json()["state"] == "removed"
    for path, body in (("", None), ("", {"name": "x"}), ("/sales", None)):
        assert ask(router, "/router/teams" + path, ada, body).status_code == 403
    listed = ask(router, "/router/teams", OWNER).json()
    assert [(team["name"], team["state"]) for team in listed["teams"]] == [("research", "active"), ("sales", "removed")]
    assert listed["may_change"] is True


# replicas


def test_replicas_follow_a_read_only_shared_key_file(start_router, openai_server, tmp_path):
    shared = tmp_path / "shared"
    create_team(shared, "research", requests_a_minute=1000)
    create_key(shared, "ada", team="research")
    settings = {"openai_base_url": openai_server.url, "keys_file": shared / KEYS_FILE, "api_keys": [OWNER], **UPSTREAM}
    first_replica, second_replica = start_router(**settings), start_router(**settings)
    bob = create_key(shared, "bob", team="research")
    assert until(lambda: chat(first_replica, bob).status_code == chat(second_replica, bob).status_code == 200)
    mounted = tmp_path / "mounted"  # as Kubernetes mounts a Secret: a link to a folder, which is replaced
    (tmp_path / "old").mkdir(), (tmp_path / "new").mkdir()
    (tmp_path / "old" / KEYS_FILE).write_bytes((shared / KEYS_FILE).read_bytes())
    eve = create_key(shared, "eve")
    (tmp_path / "new" / KEYS_FILE).write_bytes((shared / KEYS_FILE).read_bytes())
    mounted.symlink_to("old")
    third_replica = start_router(**{**settings, "keys_file": mounted / KEYS_FILE})
    assert chat(third_replica, bob).status_code == 200 and chat(third_replica, eve).status_code == 401
    (tmp_path / "next").symlink_to("new")
    (tmp_path / "next").rename(mounted)
    assert until(lambda: chat(third_replica, eve).status_code == 200)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_read_only_key_file_is_served_and_cannot_be_changed_over_http(start_router, openai_server, tmp_path):
    shared = tmp_path / "shared"
    ada = create_key(shared, "ada")
    folder = tmp_path / "read-only"
    folder.mkdir()
    if os.system(f"mount --bind {shared} {folder} 2>/dev/null && mount -o remount,ro,bind {folder} 2>/dev/null"):
        pytest.skip("nothing may be mounted here")
    try:
        settings = {"keys_file": folder / KEYS_FILE, "api_keys": [OWNER], **UPSTREAM}
        router = start_router(openai_base_url=openai_server.url, **settings)
        assert chat(router, ada).status_code == 200
        response = ask(router, "/router/keys", OWNER, {"name": "bob"})
        assert response.status_code == 503 and "read-only" in error_of(response)[2]
        command = run("router", "keys", "add", "bob", ROUTER_KEYS_FILE=str(folder / KEYS_FILE))
        assert (command.returncode, command.stdout, command.stderr.count("\n")) == (2, "", 1)
        assert "is not writable" in command.stderr
        bob = create_key(shared, "bob")
        assert until(lambda: chat(router, bob).status_code == 200)
    finally:
        os.system(f"umount {folder}")

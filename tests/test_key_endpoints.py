"""`/router/keys`: admin keys with every right create, limit, rotate and revoke keys over HTTP."""

import time

import httpx2
import openai
import pytest
from fake_openai import completion, json_reply
from synthetic_records import make_record
from test_keys import OWNER, UPSTREAM, ask, create_key

from router.client.keyfile import Limits, read_keys, sha256
from router.exporter.shipper import Shipper
from router.exporter.shipping import drain
from router.journal.segments import Cursor
from router.journal.writer import Journal
from router.limits.account import month_of
from router.limits.standings import Standing, standings
from router.serving.policy import prices
from router.settings import KEYS_FILE, load
from router.usage.ledger import Ledger

DAY_NS = 86_400 * 10**9


@pytest.fixture
def router_with_owner(start_router, openai_server, tmp_path):
    """A router with an admin key; returns both."""
    key = create_key(tmp_path / "home-0", "owner", admin=True)
    return start_router(openai_base_url=openai_server.url, **UPSTREAM), key


def keys(router, key, path="", body=None, method=None, **headers):
    return ask(router, "/router/keys" + path, key, body, method, **headers)


def error_of(answer):
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["param"], error["message"]


def chat(router, key, model="gpt-4o"):
    with openai.OpenAI(base_url=router.url, api_key=key, max_retries=0) as client:
        return client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}], max_tokens=10)


def test_a_key_is_created_used_limited_rotated_and_revoked_over_http(router_with_owner):
    router, owner = router_with_owner
    fields = {"name": "ada", "models": ["gpt-4o"], "paths": ["chat"], "expires": "90d", "usd_a_day": 5}
    result = keys(router, owner, body={**fields, "requests_a_minute": 1})
    assert result.status_code == 201 and result.headers["cache-control"] == "no-store"
    secret = result.json()["key"]
    assert result.json()["limits"] == {"usd_a_day": 5.0, "requests_a_minute": 1}
    assert read_keys(router.home / KEYS_FILE)[1].sha256 == sha256(secret)
    assert chat(router, secret).choices  # at once
    with pytest.raises(openai.RateLimitError, match="Limit 1"):
        chat(router, secret)
    changed = keys(router, owner, "/ada", {"requests_a_minute": "none", "usd_a_month": 9.5}, "PATCH").json()
    assert changed["limits"] == {"usd_a_day": 5.0, "usd_a_month": 9.5}
    new = keys(router, owner, "/ada/rotate", {"grace": "1h"}).json()["key"]
    assert new != secret and chat(router, secret).choices and chat(router, new).choices
    assert keys(router, owner, "/ada", method="DELETE").json()["state"] == "revoked"
    for key in (secret, new):
        with pytest.raises(openai.AuthenticationError, match="was revoked"):
            chat(router, key)
    completed = keys(router, owner)
    states = [(key["name"], key["state"]) for key in completed.json()["keys"]]
    assert states == [("owner", "active"), ("ada", "revoked")]
    for answer in (completed, keys(router, owner, "/ada")):
        assert not any(part in answer.text for part in (secret, new, sha256(new), "sk-router-"))


def test_invalid_fields_are_rejected_with_the_commands_errors(router_with_owner):
    router, owner = router_with_owner
    for body, param in (
        ({"name": "a b"}, "name"),
        ({"name": "x", "paths": ["root"]}, "paths"),
        ({"name": "x", "expires": "soon"}, "expires"),
        ({"name": "x", "usd_a_day": -1}, "usd_a_day"),
        ({"name": "x", "requests_a_minute": "1.5"}, "requests_a_minute"),
        ({"name": "x", "floor": 0.9}, "floor"),
    ):
        status, named, message = error_of(keys(router, owner, body=body))
        assert (status, named) == (400, param) and "--" not in message, message
    for invalid_body in (
        {},
        [],
        {"name": "x", "usd_a_year": 1},
        {"name": "x", "admin": "yes"},
        {"name": "x", "usd_a_day": True},
    ):
        assert error_of(keys(router, owner, body=invalid_body))[0] == 400, invalid_body
    assert error_of(keys(router, owner, body={"name": "owner"}))[:2] == (409, "name")
    assert error_of(keys(router, owner, "/nobody/rotate", {}))[:2] == (404, "name")
    secret = keys(router, owner, body={"name": "once"}).json()["key"]
    assert secret not in keys(router, owner, f"/{secret}", method="DELETE").text
    assert keys(router, owner, "/once", method="DELETE").status_code == 200
    assert error_of(keys(router, owner, "/once", method="DELETE"))[0] == 409
    assert [key.name for key in read_keys(router.home / KEYS_FILE)] == ["owner", "once"]


def test_only_an_admin_with_every_right_creates_keys(router_with_owner):
    router, owner = router_with_owner
    plain_key = create_key(router.home, "plain")
    scraper = create_key(router.home, "prometheus", admin=True, paths=())
    bounded = create_key(router.home, "bounded", admin=True, limits=Limits(usd_a_day=1.0))
    router.app.worker.key_watch.check()
    assert keys(router, plain_key).status_code == 403
    for key in (scraper, bounded):
        assert keys(router, key).json()["may_change"] is False
    for key in (plain_key, scraper, bounded):
        for path, body, method in (
            ("", {"name": "x"}, "POST"),
            ("/plain/rotate", {}, "POST"),
            ("/plain", {}, "PATCH"),
            ("/plain", None, "DELETE"),
        ):
            status, _, message = error_of(keys(router, key, path, body, method))
            assert status == 403 and "admin key" in message
    assert keys(router, "sk-router-unknown", body={"name": "x"}).status_code == 401
    assert len(read_keys(router.home / KEYS_FILE)) == 4 and keys(router, owner).json()["may_change"] is True


def test_a_router_without_keys_creates_none_over_http(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, **UPSTREAM)
    assert "keys add NAME --admin" in error_of(keys(router, "", body={"name": "x"}))[2]
    assert keys(router, "").json() == {"keys": [], "may_change": False, "why": keys(router, "").json()["why"]}
    assert not (router.home / KEYS_FILE).exists()


def test_a_key_in_the_settings_creates_keys_and_another_sites_page_does_not(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, api_keys=[OWNER], **UPSTREAM)
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
        answer = keys(router, OWNER, body={"name": "x"}, **headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_page")
    assert keys(router, OWNER, body={"name": "x"}, origin=router.origin).status_code == 201


def test_no_secret_is_written_to_a_file_or_log(router_with_owner, caplog):
    router, owner = router_with_owner
    with caplog.at_level("DEBUG"):
        secret = keys(router, owner, body={"name": "ada"}).json()["key"]
        new = keys(router, owner, "/ada/rotate", {}).json()["key"]
        httpx2.get(router.origin + "/metrics", headers={"authorization": f"Bearer {owner}"})
    files = b"".join(path.read_bytes() for path in router.home.rglob("*") if path.is_file())
    for key in (secret, new, owner):
        assert key not in caplog.text and key.encode() not in files
    assert "key ada was rotated by key owner" in caplog.text


def test_a_damaged_file_is_reported_and_not_replaced(router_with_owner):
    router, owner = router_with_owner
    (router.home / KEYS_FILE).write_text("{")
    for answer in (keys(router, owner), keys(router, owner, body={"name": "x"})):
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unreadable")
    assert (router.home / KEYS_FILE).read_text() == "{"


def test_the_list_has_the_spending_and_the_last_use_of_each_key(router_with_owner, openai_server):
    router, owner = router_with_owner
    secret = keys(router, owner, body={"name": "ada", "usd_a_day": 5}).json()["key"]
    openai_server.enqueue(json_reply(completion("gpt-4o", prompt_tokens=1000, completion_tokens=10)))
    chat(router, secret)
    _, ada = keys(router, owner).json()["keys"]
    usd = router.records(1)[0]["cost_usd"]
    assert ada["spent_usd_today"] == pytest.approx(usd) == ada["spent_usd_this_month"] and usd > 0.002
    assert time.time() - 5 < time.mktime(time.strptime(ada["last_used"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone


def test_each_request_counts_once_before_and_after_its_export(tmp_path):
    settings = load(home=tmp_path)
    now = month_of(time.time_ns()).starts_unix_ns + 10 * DAY_NS
    journal = Journal(tmp_path / "journal")
    days = {"ada": (0.0, 1.5, 12.0), "bob": (3.0,)}  # days ago
    number = 0
    for name, ages in days.items():
        for age in ages:
            number += 1
            started_at = int(now + DAY_NS / 2 - age * DAY_NS)
            journal.append(
                make_record(number, key_id=name, cost_usd=1.0, started_unix_ns=started_at, ended_unix_ns=started_at)
            )
    before = standings(settings.usage_url, journal.directory, now + DAY_NS // 2)
    drain([Shipper(journal.directory, "usage", Ledger(settings.usage_url, prices(settings), lambda _: None))])
    after = standings(settings.usage_url, journal.directory, now + DAY_NS // 2)
    Cursor(journal.directory, "usage").path.unlink()  # as if the exporter had ended before it stored its position
    standings_of_both = standings(settings.usage_url, journal.directory, now + DAY_NS // 2)
    expected = {
        ("key", "ada"): Standing(1.0, 2.0, now / 1e9 + 43_200),
        ("key", "bob"): Standing(0.0, 1.0, now / 1e9 + 43_200 - 3 * 86_400),
    }
    assert before == after == standings_of_both == expected
    journal.close()

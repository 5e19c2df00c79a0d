"""Named keys: their rights over real HTTP, and their storage."""

import asyncio
import json
import math
import os
import re
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import openai
import pytest
from fake_openai import chat_events, stream_reply
from synthetic_records import make_record
from test_app import SUM, command
from waiting import until

from router.client import grouping, issuing
from router.client.keyfile import CALLS, RIGHTS, Roster, locked, read_keys, read_roster, sha256, write_roster
from router.client.keys import Keys
from router.client.keywatch import KeyWatch
from router.dashboard.recent import newest_requests
from router.errors import BadKeyError
from router.exporter.shipping import drain, shippers_for
from router.journal.ownership import is_of_key
from router.journal.writer import Feedback, Journal
from router.settings import KEYS_FILE, SettingsError, load

NOW = 1_800_000_000.0
DAY = 86_400.0
OWNER = "rk-of-the-owner-1"
UPSTREAM = {"openai_api_key": "sk-upstream"}


def create_key(home: Path, name: str, **fields) -> str:
    """Create a key in a home folder; return its secret."""
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / KEYS_FILE) as path:
        roster = read_roster(path)
        keys, key = issuing.add(roster.keys, name, time.time(), **fields)
        write_roster(path, Roster(keys, roster.teams))
    return key


def create_team(home: Path, name: str, **limits) -> None:
    """Create a team with limits in a home folder."""
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / KEYS_FILE) as path:
        roster = read_roster(path)
        limit_texts = {limit: str(amount) for limit, amount in limits.items()}
        write_roster(path, Roster(roster.keys, grouping.add(roster.teams, name, time.time(), limit_texts)))


def change_roster(home: Path, edit, *arguments) -> str | None:
    with locked(home / KEYS_FILE) as path:
        roster = read_roster(path)
        changed = edit(roster.keys, *arguments)
        keys, key = changed if isinstance(changed[-1], str) else (changed, None)
        write_roster(path, Roster(keys, roster.teams))
    return key


@pytest.fixture
def keyed(start_router, openai_server, tmp_path):
    """A router with two named keys and an admin key; returns the router and the keys by name."""
    home = tmp_path / "home-0"
    keys = {name: create_key(home, name) for name in ("ada", "bob")}
    keys["owner"] = create_key(home, "owner", admin=True)
    router = start_router(openai_base_url=openai_server.url, **UPSTREAM)
    return router, keys


def ask(router, path, key, body=None, method=None, **headers):
    named = {"authorization": f"Bearer {key}", **headers} if key else headers
    return httpx2.request(
        method or ("GET" if body is None else "POST"), router.origin + path, json=body, headers=named, timeout=10
    )


def chat(router, key, model="auto", **headers):
    return ask(router, "/v1/chat/completions", key, {"model": model, "messages": SUM}, **headers)


# creation and storage


def test_a_key_is_random_and_only_its_hash_is_stored(tmp_path):
    first, second = create_key(tmp_path, "ada"), create_key(tmp_path, "bob")
    assert re.fullmatch(r"sk-router-[A-Za-z0-9_-]{43}", first) and first != second
    stored_bytes = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert sha256(first).encode() in stored_bytes
    assert first.encode() not in stored_bytes and first.removeprefix("sk-router-").encode() not in stored_bytes
    assert first not in repr(read_keys(tmp_path / KEYS_FILE)) and first not in repr(
        vars(Keys([], read_roster(tmp_path / KEYS_FILE)))
    )


def test_only_its_owner_can_read_the_key_file_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        create_key(tmp_path, "ada")
        (tmp_path / KEYS_FILE).chmod(0o644)
        create_key(tmp_path, "bob")
    finally:
        os.umask(before)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {
        KEYS_FILE: 0o600,
        f"{KEYS_FILE}.lock": 0o600,
    }


def test_a_new_key_has_the_right_to_call_and_an_admin_has_every_right(tmp_path):
    create_key(tmp_path, "ada")
    create_key(tmp_path, "owner", admin=True)
    create_key(tmp_path, "scraper", admin=True, paths=())
    assert [(key.paths, key.admin) for key in read_keys(tmp_path / KEYS_FILE)] == [
        (CALLS, False),
        (RIGHTS, True),
        ((), True),
    ]
    assert "account" not in CALLS


@pytest.mark.parametrize(
    "name", ["", "-ada", "a b", "a/b", "é", "a" * 65, "0123456789abcdef", "sk-x", "sk-router-" + "x" * 43, "a\n"]
)
def test_an_invalid_name_is_rejected_and_not_printed(name):
    for attempt in (lambda: issuing.add((), name, NOW), lambda: issuing.find_key((), name)):
        with pytest.raises(SettingsError) as error:
            attempt()
        assert len(name) < 2 or name not in str(error.value)


def test_the_name_of_a_revoked_key_cannot_be_used_again():
    keys, _ = issuing.add((), "ada", NOW)
    for roster_keys in (keys, issuing.revoke(keys, "ada", NOW)):
        with pytest.raises(SettingsError, match="was in use"):
            issuing.add(roster_keys, "ada", NOW)


@pytest.mark.parametrize("text", ["soon", "90", "-1d", "2027-13-01", "1.5h", "999999w", "2020-01-01", "0d"])
def test_an_invalid_or_past_expiry_is_rejected(text):
    with pytest.raises(SettingsError, match="--expires"):
        issuing.add((), "ada", NOW, expires_unix=issuing.parse_expiry(text, NOW))


def test_a_key_expires_at_the_end_of_its_last_day():
    assert issuing.parse_expiry("2027-01-31", NOW) == issuing.parse_expiry("2027-02-01", NOW) - DAY
    assert time.gmtime(issuing.parse_expiry("2027-01-31", NOW))[:6] == (2027, 2, 1, 0, 0, 0)


# authentication


def callers(keys, *admins):
    from pydantic import SecretStr

    return Keys([SecretStr(key) for key in admins], Roster(keys))


def test_the_metrics_key_reads_only_metrics(start_router, openai_server):
    metrics, admin = "mk-of-the-tests-0001", "rk-of-the-tests-0001"
    router = start_router(
        openai_base_url=openai_server.url, openai_api_key="sk-x", metrics_key=metrics, api_keys=[admin]
    )

    def status(key, path, method="GET", **body):
        headers = {"authorization": f"Bearer {key}"}
        return httpx2.request(method, router.origin + path, headers=headers, **body).status_code

    chat_request = {"json": {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}}
    assert status(metrics, "/metrics") == status(admin, "/metrics") == 200
    assert status(metrics, "/v1/chat/completions", "POST", **chat_request) == 403
    for path in ("/router/keys", "/router/overview", "/v1/files"):
        assert status(metrics, path) == 403, path
    assert status(metrics, "/router/keys", "POST", json={"name": "mine", "admin": True}) == 403
    assert not openai_server.received


def test_a_metrics_key_alone_does_not_require_keys_elsewhere(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, openai_api_key="sk-x", metrics_key="mk-of-the-tests-0001")
    assert httpx2.get(router.origin + "/metrics").status_code == 200
    assert httpx2.get(router.url + "/models").status_code == 200


def authenticate(keys, key):
    return keys.authenticate([(b"authorization", b"Bearer " + key.encode())])


def test_revoked_expired_and_unknown_keys_are_rejected_with_the_reason():
    now = time.time()
    keys, ada = issuing.add((), "ada", now)
    keys, bob = issuing.add(keys, "bob", now - 2 * DAY, expires_unix=now - DAY)
    directory = callers(issuing.revoke(keys, "ada", now - 1))
    for key, reason in ((ada, "was revoked"), (bob, "has expired"), ("sk-router-" + "x" * 43, "Incorrect API key")):
        with pytest.raises(BadKeyError, match=reason):
            authenticate(directory, key)


def test_a_rotated_key_is_accepted_only_during_its_grace_period():
    now = time.time()
    keys, first = issuing.add((), "ada", now)
    keys, second = issuing.rotate(keys, "ada", now, 3600)
    directory = callers(keys)
    assert authenticate(directory, first).key_id == authenticate(directory, second).key_id == "ada"
    assert (
        authenticate(directory, first).until_unix == now + 3600
        and authenticate(directory, second).until_unix == math.inf
    )
    keys, third = issuing.rotate(keys, "ada", now, 0)  # as after a leak: no earlier key stays valid
    for old in (first, second):
        with pytest.raises(BadKeyError, match="was replaced"):
            authenticate(callers(keys), old)
    assert authenticate(callers(keys), third).key_id == "ada"
    with pytest.raises(SettingsError, match="is revoked"):
        issuing.rotate(issuing.revoke(keys, "ada", now), "ada", now, 0)


def test_a_grace_period_ends_when_the_key_expires():
    now = time.time()
    keys, first = issuing.add((), "ada", now, expires_unix=now + 60)
    keys, _ = issuing.rotate(keys, "ada", now, 3600)
    assert authenticate(callers(keys), first).until_unix == now + 60


def test_if_all_keys_are_revoked_every_request_is_rejected():
    keys, ada = issuing.add((), "ada", NOW)
    directory = callers(issuing.revoke(keys, "ada", 1.0))
    assert directory.required
    for headers in ([], [(b"authorization", b"Bearer " + ada.encode())], [(b"authorization", b"Bearer other")]):
        with pytest.raises(BadKeyError):
            directory.authenticate(headers)


def test_keys_in_the_settings_are_admins_identified_by_a_digest():
    keys, ada = issuing.add((), "ada", NOW)
    directory = callers(keys, OWNER)
    owner, named = authenticate(directory, OWNER), authenticate(directory, ada)
    assert owner.admin and re.fullmatch("[0-9a-f]{16}", owner.key_id) and owner.rights == set(RIGHTS)
    assert (named.key_id, named.admin, named.own, owner.own) == ("ada", False, "ada", None)
    assert not directory.is_single and callers(keys).is_single


def test_auto_allows_all_routed_names_and_a_model_allows_its_efforts():
    keys, ada = issuing.add((), "ada", NOW, models=("auto", "gpt-6-luna"))
    caller = authenticate(callers(keys), ada)
    for name in ("auto", "auto-cost", "auto@0.9", "gpt-6-luna", "gpt-6-luna:low"):
        assert caller.may_use(name), name
    for name in ("gpt-6-sol", "gpt-6-luna-2026-01-01", "", "auto@2", "gpt-6-sol:low", "AUTO"):
        assert not caller.may_use(name), name
    assert caller.may_use("gpt-4o", ["gpt-4o"])
    keys, bob = issuing.add((), "bob", NOW, models=("gpt-6-luna",))
    assert not authenticate(callers(keys), bob).may_use("auto")


# the official client


def client(router, key):
    return openai.OpenAI(base_url=router.url, api_key=key, max_retries=0)


def test_the_official_client_gets_its_own_exceptions(start_router, openai_server, tmp_path):
    home = tmp_path / "home-0"
    limited_key = create_key(home, "some", models=("auto", "gpt-4o-mini"))
    models_only_key = create_key(home, "none", paths=("models",))
    router = start_router(openai_base_url=openai_server.url, **UPSTREAM)
    with client(router, limited_key) as api:
        assert api.chat.completions.create(model="auto-cost", messages=SUM).choices
        assert api.chat.completions.create(model="gpt-4o-mini", messages=SUM).choices
        with pytest.raises(openai.NotFoundError) as error:
            api.chat.completions.create(model="gpt-4o", messages=SUM)
        assert error.value.code == "model_not_found" and "do not have access" in error.value.message
        with pytest.raises(openai.PermissionDeniedError) as raised:
            api.files.list()
        assert "account" in raised.value.message and raised.value.type == "invalid_request_error"
    with client(router, models_only_key) as api:
        assert api.models.list().data
        for call in (
            lambda: api.chat.completions.create(model="auto", messages=SUM),
            lambda: api.responses.create(model="auto", input="2+2?"),
            lambda: api.completions.create(model="auto", prompt="2+2?"),
            lambda: api.embeddings.create(model="text-embedding-3-small", input="x"),
        ):
            with pytest.raises(openai.PermissionDeniedError):
                call()
    with client(router, "sk-router-" + "x" * 43) as api, pytest.raises(openai.AuthenticationError) as unknown:
        api.chat.completions.create(model="auto", messages=SUM)
    assert unknown.value.code == "invalid_api_key"
    change_roster(home, issuing.revoke, "some", time.time())
    with client(router, limited_key) as api:
        assert until(lambda: chat(router, limited_key).status_code == 401)
        with pytest.raises(openai.AuthenticationError, match="was revoked"):
            api.chat.completions.create(model="auto", messages=SUM)
    assert {received.json["model"] for received in openai_server.received if received.method == "POST"} <= {
        "gpt-4o-mini",
        "gpt-4o",
    }


# rights


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/files"),
        ("DELETE", "/v1/models/ft:x"),
        ("GET", "/v1/chat/completions"),
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/batches"),
        ("POST", "/v1/fine_tuning/jobs"),
        ("POST", "/v1/embeddings/"),
        ("POST", "/v1//embeddings"),
        ("POST", "/v1/%65mbeddings"),
        ("GET", "/v1/embeddings"),
        ("POST", "/v1/models"),
        ("PUT", "/v1/chat/completions"),
    ],
)
def test_other_endpoints_require_the_account_right(keyed, openai_server, method, path):
    router, keys = keyed
    response = ask(router, path, keys["ada"], method=method)
    assert response.status_code == 403 and "account" in response.json()["error"]["message"]
    assert openai_server.received == []
    assert ask(router, path, keys["owner"], method=method).status_code != 403
    record = router.records(1)[0]
    assert (record["key_id"], record["status"], record["outcome"]) == ("ada", 403, "failed")


def test_the_models_of_a_key_are_enforced_on_every_path(start_router, openai_server, tmp_path):
    key = create_key(tmp_path / "home-0", "some", models=("gpt-4o-mini", "text-embedding-3-small"))
    router = start_router(openai_base_url=openai_server.url, routed_models=["gpt-4o"], **UPSTREAM)
    small, large = {"model": "text-embedding-3-small", "input": "x"}, {"model": "text-embedding-3-large", "input": "x"}
    assert ask(router, "/v1/embeddings", key, small).status_code != 404
    before = len(openai_server.received)
    for body in (large, {"input": "x"}):
        assert ask(router, "/v1/embeddings", key, body).status_code == 404
    twice = b'{"model":"text-embedding-3-small","input":"x","model":"text-embedding-3-large"}'
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    assert httpx2.post(router.url + "/embeddings", content=twice, headers=headers).status_code == 400
    packed = httpx2.post(router.url + "/embeddings", content=b"x", headers={**headers, "content-encoding": "gzip"})
    assert packed.status_code == 415
    for model in ("auto", "auto@0.9", "gpt-4o", "gpt-4.1"):
        assert chat(router, key, model).status_code == 404, model
    assert chat(router, key, "gpt-4o-mini", **{"x-router-model": "gpt-4.1"}).status_code == 404
    assert ask(router, "/v1/responses", key, {"input": "x"}).status_code == 404  # the upstream's own default
    for name in ("auto", "gpt-4o", "gpt%2D4o"):
        assert ask(router, f"/v1/models/{name}", key).status_code == 404, name
    assert len(openai_server.received) == before
    listed = [model["id"] for model in ask(router, "/v1/models", key).json()["data"]]
    assert listed and set(listed) <= {"gpt-4o-mini", "text-embedding-3-small"}


def test_an_embedding_request_of_a_key_with_models_is_forwarded_unchanged(start_router, openai_server, tmp_path):
    key = create_key(tmp_path / "home-0", "some", models=("e",))
    router = start_router(openai_base_url=openai_server.url, **UPSTREAM)
    body = b'{ "input":["' + b"x" * 300_000 + b'"],  "model" : "e" }'
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    httpx2.post(router.url + "/embeddings", content=body, headers=headers, timeout=10)
    (received,) = openai_server.received
    assert received.body == body and received.header("authorization") == "Bearer sk-upstream"


# visibility


def test_a_key_sees_its_own_usage_and_decisions_and_an_admin_sees_all(keyed, create_store, tmp_path):
    router, keys = keyed
    for name, times in (("ada", 2), ("bob", 1)):
        for _ in range(times):
            assert chat(router, keys[name]).status_code == 200
    assert {record["key_id"] for record in router.records(3)} == {"ada", "bob"}
    drain(shippers_for(load(home=router.home, mlflow_tracking_uri=create_store(tmp_path / "store")))[0])
    own_usage = ask(router, "/router/usage?group_by=key", keys["ada"]).json()
    assert [(row["key"], row["requests"]) for row in own_usage["rows"]] == [("ada", 2)]
    assert own_usage["total"]["requests"] == 2 and "calibration_usd" not in own_usage["total"]
    assert ask(router, "/router/usage?group_by=model", keys["bob"]).json()["rows"][0]["requests"] == 1
    table = ask(router, "/router/usage?group_by=key&format=csv", keys["bob"]).text
    assert "bob" in table and "ada" not in table
    all_usage = ask(router, "/router/usage?group_by=key", keys["owner"]).json()
    assert [(row["key"], row["requests"]) for row in all_usage["rows"]] == [("ada", 2), ("bob", 1)]
    assert all_usage["total"]["calibration_usd"] == 0.0
    recent = {name: ask(router, "/router/recent", key).json()["requests"] for name, key in keys.items()}
    assert {name: [row["key"] for row in rows] for name, rows in recent.items()} == {
        "ada": ["ada", "ada"],
        "bob": ["bob"],
        "owner": ["bob", "ada", "ada"],
    }
    result = command("usage", "--group-by", "key", ROUTER_HOME=str(router.home))
    assert "ada" in result.stdout and "bob" in result.stdout


def test_only_admins_read_the_overview_and_the_metrics(keyed):
    router, keys = keyed
    chat(router, keys["ada"])
    for path in ("/router/overview", "/metrics"):
        assert ask(router, path, "").status_code == 401
        response = ask(router, path, keys["ada"])
        assert response.status_code == 403 and "admin" in response.json()["error"]["message"]
        assert ask(router, path, keys["owner"]).status_code == 200
    samples = ask(router, "/metrics", keys["owner"]).text
    assert 'router_key_requests_total{key="ada"} 1.0' in samples and 'key="bob"' not in samples
    for path in ("/health", "/ready"):
        assert ask(router, path, "").status_code == 200


def test_a_key_gives_feedback_only_on_its_own_traces(keyed, create_store, tmp_path):
    router, keys = keyed
    traces = {name: chat(router, keys[name]).headers["x-router-trace-id"] for name in ("ada", "bob")}

    def rate(name, trace):
        return ask(router, "/router/feedback", keys[name], {"trace_id": trace, "thumbs": "up"}).status_code

    def rated():
        return [rate("ada", traces["ada"]), rate("ada", traces["bob"]), rate("ada", "f" * 32), rate("owner", "f" * 32)]

    assert rated() == [202, 404, 404, 202]  # from the journal, before any export
    drain(shippers_for(load(home=router.home, mlflow_tracking_uri=create_store(tmp_path / "store")))[0])
    for segment in (router.home / "journal").glob("*.jsonl"):
        os.truncate(segment, 0)  # as if the segment were removed
    assert rated() == [202, 404, 404, 202]  # from the usage tables


def test_a_trace_id_quoted_in_a_request_grants_no_access(tmp_path):
    journal = Journal(tmp_path)
    trace = f"{7:032x}"
    quoted = {"trace_id": trace, "key_id": "eve", "kind": "request"}
    journal.append(make_record(6, key_id="ada"))
    journal.append(make_record(1, key_id="eve", request=quoted, user=f'"trace_id":"{trace}"'))
    journal.append(Feedback(feedback_id="1" * 32, trace_id=trace, unix_ns=1, score=1.0, user="eve"))
    journal.close()
    assert is_of_key(tmp_path, trace, "ada") and not is_of_key(tmp_path, trace, "eve")
    assert not is_of_key(tmp_path, "f" * 32, "ada")


def test_a_key_finds_its_decisions_behind_many_of_other_keys(tmp_path):
    journal = Journal(tmp_path)
    journal.append(make_record(0, key_id="ada"))
    for number in range(1, 1200):
        journal.append(make_record(number, key_id="bob", request={"key_id": "ada"}))
    journal.close()
    assert [request.key_id for request in newest_requests(tmp_path, 50, "ada")] == ["ada"]
    assert len(newest_requests(tmp_path, 50, "bob")) == 50 == len(newest_requests(tmp_path, 50))


# a running router


def test_a_running_router_applies_key_changes_without_interrupting_requests(start_router, openai_server, tmp_path):
    home = tmp_path / "home-0"
    router = start_router(openai_base_url=openai_server.url, **UPSTREAM)
    assert chat(router, "").status_code == 200  # no keys yet, on loopback
    first = create_key(home, "ada")
    assert until(lambda: chat(router, "").status_code == 401)
    assert chat(router, first).status_code == 200
    assert chat(router, first, host="router.example").status_code == 200  # as with keys in the settings
    second = change_roster(home, issuing.rotate, "ada", time.time(), 3600)
    assert until(lambda: chat(router, second).status_code == 200)
    assert chat(router, first).status_code == 200
    openai_server.enqueue(stream_reply(*chat_events("gpt-4o-mini", ["a"] * 20), gap=0.15))
    with (
        client(router, second) as api,
        api.chat.completions.create(model="auto", messages=SUM, stream=True) as answer,
    ):
        words = [next(answer)]
        change_roster(home, issuing.revoke, "ada", time.time())
        assert until(lambda: chat(router, second).status_code == 401)
        words += list(answer)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in words if chunk.choices) == "a" * 20
    for key in (first, second):
        assert chat(router, key).status_code == 401


def test_an_expired_key_is_rejected_at_once(start_router, openai_server, tmp_path):
    end = time.time() + 2.5
    key = create_key(tmp_path / "home-0", "ada", expires_unix=end)
    router = start_router(openai_base_url=openai_server.url, **UPSTREAM)
    assert chat(router, key).status_code == 200
    time.sleep(max(end - time.time(), 0))
    response = chat(router, key)
    assert response.status_code == 401 and response.json()["error"]["code"] == "invalid_api_key"
    assert "has expired" in response.json()["error"]["message"]


@pytest.mark.parametrize("damage", ["truncated", "removed", "twice"])
def test_a_damaged_key_file_is_reported_and_the_last_keys_stay_valid(keyed, damage):
    router, keys = keyed
    path = router.home / KEYS_FILE
    content = path.read_bytes()
    document = json.loads(content)
    damaged = {
        "truncated": content[: len(content) // 2],
        "twice": json.dumps({**document, "keys": document["keys"] * 2}).encode(),
    }

    def key_warnings():
        return [line for line in httpx2.get(router.origin + "/health").json()["warnings"] if "keys" in line]

    assert key_warnings() == []
    path.unlink() if damage == "removed" else path.write_bytes(damaged[damage])
    assert until(key_warnings)
    assert chat(router, keys["ada"]).status_code == 200 and chat(router, "").status_code == 401
    path.write_bytes(content)
    assert until(lambda: key_warnings() == [])
    carol = create_key(router.home, "carol")
    assert until(lambda: chat(router, carol).status_code == 200)


def test_a_damaged_key_file_at_the_start_is_a_one_line_error(tmp_path):
    create_key(tmp_path, "ada")
    (tmp_path / KEYS_FILE).write_bytes(b'{"format":1,"keys":[{"name":"ada"}]}')
    for arguments in (["serve", "--port", "0"], ["keys", "list"], ["keys", "add", "bob"], ["keys", "revoke", "ada"]):
        result = command(*arguments, ROUTER_HOME=str(tmp_path))
        assert result.returncode == 2 and result.stderr.count("\n") == 1 and KEYS_FILE in result.stderr, result.stderr
    with pytest.raises(SettingsError, match="damaged"):
        KeyWatch(load(home=tmp_path))


@pytest.mark.parametrize("damage", ["other", "format", "rights", "twice"])
def test_a_key_file_in_an_invalid_format_is_rejected(tmp_path, damage):
    create_key(tmp_path, "ada")
    path = tmp_path / KEYS_FILE
    document = json.loads(path.read_bytes())
    damaged = {
        "other": [],
        "format": {**document, "format": 2},
        "rights": {**document, "keys": [{**document["keys"][0], "paths": ["root"]}]},
        "twice": {**document, "keys": document["keys"] * 2},
    }
    path.write_text(json.dumps(damaged[damage]))
    with pytest.raises(SettingsError, match=KEYS_FILE):
        read_keys(path)


def test_named_keys_are_never_sent_to_the_upstream(tmp_path):
    create_key(tmp_path, "ada")
    with pytest.raises(SettingsError, match="ROUTER_FORWARD_CLIENT_KEYS"):
        KeyWatch(load(home=tmp_path, forward_client_keys=True))
    result = command("keys", "add", "bob", ROUTER_HOME=str(tmp_path), ROUTER_FORWARD_CLIENT_KEYS="true")
    assert result.returncode == 2 and "ROUTER_FORWARD_CLIENT_KEYS" in result.stderr and result.stdout == ""


def test_with_named_keys_serve_listens_beyond_loopback(tmp_path):
    result = command("serve", "--host", "0.0.0.0", ROUTER_HOME=str(tmp_path))
    assert result.returncode == 2 and "keys add" in result.stderr
    key = create_key(tmp_path, "ada")
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("ROUTER_", "OPENAI_", "MLFLOW_"))
    }
    log = tmp_path / "log"
    with log.open("wb") as log_file:
        serving = subprocess.Popen(
            [sys.executable, "-m", "router", "serve", "--host", "0.0.0.0", "--port", "0"],
            env={**clean, "ROUTER_HOME": str(tmp_path)},
            stderr=log_file,
        )
    try:
        assert until(lambda: "running on" in log.read_text(), 60), log.read_text()
        port = re.search(r"0\.0\.0\.0:(\d+)", log.read_text())[1]
        headers = {"authorization": f"Bearer {key}", "host": "router.example"}
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        body = {"model": "auto", "messages": SUM}
        assert httpx2.post(url, json=body, headers=headers, timeout=30).status_code == 200  # simulated
        assert httpx2.post(url, json=body, timeout=30).status_code == 401
    finally:
        serving.terminate()
        serving.wait(30)
    assert key not in log.read_text()


# the command line


def test_keys_created_at_the_same_time_are_all_stored(tmp_path):
    names = [f"key-{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        created = dict(zip(names, pool.map(lambda name: create_key(tmp_path, name), names), strict=True))
    with ThreadPoolExecutor(8) as pool:
        new = dict(
            zip(names, pool.map(lambda name: change_roster(tmp_path, issuing.rotate, name, 1.0, 0), names), strict=True)
        )
    keys = {key.name: key for key in read_keys(tmp_path / KEYS_FILE)}
    assert {name: key.sha256 for name, key in keys.items()} == {name: sha256(key) for name, key in new.items()}
    assert {name: key.earlier[0].sha256 for name, key in keys.items()} == {
        n: sha256(key_text) for n, key_text in created.items()
    }
    assert {path.name for path in tmp_path.iterdir()} == {KEYS_FILE, f"{KEYS_FILE}.lock"}  # no temporary file remains


def test_concurrent_processes_lose_no_key(tmp_path):
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("ROUTER_", "OPENAI_", "MLFLOW_"))
    }
    environment = {**clean, "ROUTER_HOME": str(tmp_path)}

    async def run(*arguments):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "router", "keys", *arguments, env=environment, stdout=-1, stderr=-1
        )
        output, error = await process.communicate()
        return process.returncode, output.decode(), error.decode()

    async def all_of_them():
        await run("add", "old")
        return await asyncio.gather(run("rotate", "old", "--grace", "24h"), *(run("add", f"k{n}") for n in range(3)))

    answers = asyncio.run(all_of_them())
    assert [code for code, *_ in answers] == [0] * 4, answers
    keys = {key.name: key for key in read_keys(tmp_path / KEYS_FILE)}
    assert set(keys) == {"old", "k0", "k1", "k2"} and len(keys["old"].earlier) == 1
    printed = {sha256(output.strip()) for _, output, _ in answers}
    assert printed == {key.sha256 for key in keys.values()}


def test_a_key_is_printed_only_when_it_is_created(tmp_path):
    def keys(*arguments):
        return command("keys", *arguments, ROUTER_HOME=str(tmp_path), COLUMNS="200")

    result = keys("add", "ada", "--models", "auto,gpt-4o-mini", "--expires", "90d")
    assert result.returncode == 0, result.stderr
    key = result.stdout.strip()
    assert result.stdout == key + "\n" and key.startswith("sk-router-") and key not in result.stderr
    completed = keys("rotate", "ada", "--grace", "24h")
    for shown_result in (
        keys("list"),
        keys("list", "--json"),
        keys("show", "ada"),
        keys("revoke", "ada"),
        keys("show", "ada"),
    ):
        assert shown_result.returncode == 0
        for secret in (key, completed.stdout.strip(), sha256(key)):
            assert secret not in shown_result.stdout + shown_result.stderr
    (shown_result,) = json.loads(keys("list", "--json").stdout)
    assert (shown_result["name"], shown_result["state"], shown_result["models"], shown_result["admin"]) == (
        "ada",
        "revoked",
        ["auto", "gpt-4o-mini"],
        False,
    )
    for invalid_arguments in (
        ["show", key],
        ["revoke", "bob"],
        ["add", key],
        ["add", "x", "--paths", "root"],
        ["rotate", "ada"],
    ):
        shown_result = keys(*invalid_arguments)
        assert (shown_result.returncode, shown_result.stdout, shown_result.stderr.count("\n")) == (2, "", 1), (
            invalid_arguments
        )
        assert key not in shown_result.stderr


def test_journal_answers_and_metrics_contain_no_key(keyed):
    router, keys = keyed
    answers = []
    for name in keys:
        answers += [chat(router, keys[name]), ask(router, "/v1/files", keys[name]), ask(router, "/metrics", keys[name])]
        body = {"model": "auto", "messages": [{"role": "user", "content": f"my key is {keys[name]}"}]}
        answers.append(ask(router, "/v1/chat/completions", keys[name], body))
    change_roster(router.home, issuing.revoke, "ada", time.time())
    assert until(lambda: chat(router, keys["ada"]).status_code == 401)
    answers.append(chat(router, keys["ada"]))
    answer_text = "".join(answer.text + str(answer.headers) for answer in answers)
    stored_bytes = b"".join(path.read_bytes() for path in router.home.rglob("*") if path.is_file()).decode(
        errors="replace"
    )
    for key in keys.values():
        assert key not in answer_text and key not in stored_bytes

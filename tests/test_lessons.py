"""Lessons from refusals outlive a worker, are shared among workers, are shown, and can be removed."""

import json
import os
import time
from pathlib import Path

import httpx2
import pytest
from browser import Browser, find_browser
from test_adapting import ask, chat, new, to, unknown  # noqa: F401  fixtures among them
from typer.testing import CliRunner
from waiting import until

from router.__main__ import app
from router.adaptation.lessons import (
    FILE,
    MAX_AGE_SECONDS,
    MAX_LESSONS,
    Lesson,
    LessonsError,
    add_lessons,
    forget_model,
    read_lessons,
)
from router.notices import notices
from router.policy.parameters import ParameterRule
from router.policy.refusals import Refusal, RefusalKind, read_refusal
from router.settings import load

NOW = 1_800_000_000.0
ROLE = Refusal(RefusalKind.ROLE, role="developer")


def lesson(model="m", refusal=ROLE, since=NOW, endpoint="chat/completions"):
    return Lesson(model, "api.example.com", endpoint, refusal, since)


def routed_again(to, router):  # noqa: F811
    return to("new-cheap", "new-strong", models=router.app.worker.settings.models, home=router.home)


def learnt(home, *arguments):
    return CliRunner().invoke(app, ["learnt", *arguments], env={"ROUTER_HOME": str(home)})


# the file

KINDS = [
    ROLE,
    Refusal(RefusalKind.TOOLS),
    Refusal(RefusalKind.EFFORT, efforts=("low", "high")),
    Refusal(RefusalKind.PARAMETER, ParameterRule("max_tokens", called="max_completion_tokens")),
    Refusal(RefusalKind.PARAMETER, ParameterRule("logprobs", values=(False,), needed=True)),
    Refusal(RefusalKind.PARAMETER, ParameterRule("include", without="message.output_text.logprobs", needed=True)),
    Refusal(RefusalKind.PARAMETER, ParameterRule("max_tokens", most=4096)),
]


def test_lessons_round_trip_without_duplicates(tmp_path):
    path = tmp_path / FILE
    lessons = [lesson(refusal=refusal, since=NOW + n) for n, refusal in enumerate(KINDS)]
    add_lessons(path, lessons[:4], NOW)
    add_lessons(path, [*lessons[2:], lesson(refusal=ROLE, since=NOW + 99)], NOW)
    assert read_lessons(path, NOW) == tuple(lessons)
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in tmp_path.iterdir()) == [FILE, f"{FILE}.lock"]


def test_lessons_are_limited_in_number_and_age(tmp_path):
    path = tmp_path / FILE
    add_lessons(path, [lesson(f"m{n}") for n in range(MAX_LESSONS + 5)], NOW)
    assert [each.model for each in read_lessons(path, NOW)] == [f"m{n}" for n in range(5, MAX_LESSONS + 5)]
    assert read_lessons(path, NOW + MAX_AGE_SECONDS) == ()
    add_lessons(path, [lesson("new", since=NOW + MAX_AGE_SECONDS)], NOW + MAX_AGE_SECONDS)
    assert len(json.loads(path.read_text())["lessons"]) == 1


def test_forgetting_a_model_includes_every_effort(tmp_path):
    path = tmp_path / FILE
    add_lessons(path, [lesson("m:low"), lesson("m"), lesson("m2"), lesson("n:low")], NOW)
    assert (forget_model(path, "m", NOW), forget_model(path, "n:low", NOW), forget_model(path, "x", NOW)) == (2, 1, 0)
    assert [each.model for each in read_lessons(path, NOW)] == ["m2"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"format":2,"lessons":[]}',
        b'{"format":1,"lessons":[{"model":"m"}]}',
        *(
            b'{"format":1,"lessons":[{"model":"m","upstream":"u","endpoint":"responses","since_unix":1,"refusal":%b}]}'
            % each
            for each in (
                b'{"kind":"parameter"}',
                b'{"kind":"parameter","rule":{"name":"messages"}}',
                b'{"kind":"parameter","rule":{"name":"stop","called":"messages"}}',
                b'{"kind":"reasoning_effort","efforts":["much"]}',
                b'{"kind":"role","role":"user"}',
                b'{"kind":"model_not_found"}',
                b'{"kind":"other"}',
            )
        ),
    ],
    ids=lambda content: repr(content[-40:]),
)
def test_a_damaged_file_is_reported_and_replaced_by_the_next_lesson(tmp_path, content):
    path = tmp_path / FILE
    path.write_bytes(content)
    with pytest.raises(LessonsError, match=FILE):
        read_lessons(path, NOW)
    add_lessons(path, [lesson()], NOW)
    assert read_lessons(path, NOW) == (lesson(),)


# a running router


def test_a_lesson_outlives_the_router_and_is_shown(new, to, unknown, refusing_openai):  # noqa: F811
    first = ask(new, chat(max_tokens=9))
    model = first.headers["x-router-model"]
    told = httpx2.get(new.origin + "/health").json()["learnt"]
    host = refusing_openai.url.removeprefix("http://").partition("/")[0]
    assert [{**alert, "since": ""} for alert in told] == [
        {
            "model": model,
            "upstream": host,
            "endpoint": "chat/completions",
            "parameter": "max_tokens",
            "done": "sent as max_completion_tokens",
            "since": "",
        }
    ]
    assert httpx2.get(new.origin + "/router/overview").json()["learnt"] == told
    assert f'router_learnt_refusals{{model="{model}"}} 1.0' in httpx2.get(new.origin + "/metrics").text
    new.close()
    again = routed_again(to, new)
    assert httpx2.get(again.origin + "/health").json()["learnt"] == told
    assert ask(again, chat(max_tokens=9)).headers["x-router-adapted"] == first.headers["x-router-adapted"]
    assert len(refusing_openai.refusals) == 1


def test_other_workers_learn_and_forget_lessons(new, to, unknown, refusing_openai):  # noqa: F811
    other = routed_again(to, new)
    model = ask(new, chat(max_tokens=9)).headers["x-router-model"]
    assert until(lambda: other.app.worker.adapter.describe_lessons())
    ask(other, chat(max_tokens=9))
    assert len(refusing_openai.refusals) == 1
    listed = json.loads(learnt(new.home, "--json").stdout)
    assert listed == other.app.worker.adapter.describe_lessons() == new.app.worker.adapter.describe_lessons()
    assert "max_completion_tokens" in learnt(new.home).stdout
    result = learnt(new.home, "--forget", model)
    assert (result.exit_code, result.stderr) == (
        0,
        f"router: deleted 1 adaptation for {model}; a running router follows within two seconds\n",
    )
    assert until(
        lambda: not other.app.worker.adapter.describe_lessons() and not new.app.worker.adapter.describe_lessons()
    )
    ask(other, chat(max_tokens=9))
    assert len(refusing_openai.refusals) == 2
    assert str(learnt(new.home, "--forget", "nobody").exception).startswith("no adaptations are stored for 'nobody'")


def test_lessons_of_another_upstream_are_ignored(new, to, refusing_openai):  # noqa: F811
    now = time.time()
    refusal = Refusal(RefusalKind.PARAMETER, ParameterRule("temperature"))
    add_lessons(
        new.home / FILE,
        [Lesson(name, "other:1", "chat/completions", refusal, now) for name in ("new-cheap", "new-strong")],
        now,
    )
    again = routed_again(to, new)
    assert len(again.app.worker.adapter.describe_lessons()) == 2
    assert "x-router-adapted" not in ask(again, chat(temperature=0)).headers


def test_a_damaged_file_is_reported_and_the_router_serves(new, to, unknown, refusing_openai):  # noqa: F811
    (new.home / FILE).write_text("{")
    again = routed_again(to, new)
    warned = httpx2.get(again.origin + "/health").json()["warnings"]
    assert any(FILE in warning and "damaged" in warning for warning in warned)
    assert ask(again, chat(max_tokens=9)).status_code == 200
    assert until(lambda: not any(FILE in each for each in httpx2.get(again.origin + "/health").json()["warnings"]))
    assert len(read_lessons(again.home / FILE, time.time())) == 1


def test_lessons_that_cannot_be_written_stay_in_memory_and_are_reported(new, unknown, refusing_openai, monkeypatch):  # noqa: F811
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("router.shared_file.replace", full)
    ask(new, chat(max_tokens=9))
    assert until(lambda: any("No space left" in notice for notice in notices(new.app.worker)))
    ask(new, chat(max_tokens=9))
    assert len(refusing_openai.refusals) == 1
    monkeypatch.undo()
    assert until(
        lambda: (new.home / FILE).exists() and not any("No space" in notice for notice in notices(new.app.worker))
    )


@pytest.mark.skipif(find_browser() is None, reason="no Chromium is installed here")
def test_the_page_shows_lessons(new, unknown, refusing_openai):  # noqa: F811
    browser = Browser()
    try:
        browser.open(new.origin + "/")
        browser.wait("document.querySelector('#state-text').textContent === 'Live'")
        assert browser.evaluate("document.querySelector('#learnt-card').hidden")
        ask(new, chat(max_tokens=9))
        assert browser.wait("!document.querySelector('#learnt-card').hidden")
        assert "sent as max_completion_tokens" in browser.text("#learnt")
        if picture := os.environ.get("LEARNT_PICTURE"):
            browser.save_screenshot(Path(picture))
        assert browser.errors == []
    finally:
        browser.close()


def test_secrets_in_upstream_urls_are_not_shown(tmp_path):
    from router.adaptation.lessons import upstream_hosts

    settings = load(home=tmp_path, openai_base_url="https://ada:secret@api.example.com/v1", openai_api_key="sk-x")
    assert upstream_hosts("m:low", settings) == "api.example.com"


def test_every_kind_of_refusal_occurs_at_some_upstream():
    body = json.dumps({"error": {"message": "Unexpected message role.", "param": None, "code": 400}}).encode()
    assert read_refusal(400, body) == ROLE

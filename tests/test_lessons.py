"""Lessons from refusals outlive a worker, are shared among workers, are shown, and can be removed."""

import json
import os
import time
from pathlib import Path

import httpx2
import pytest
from browser import Browser, find_browser
from test_adapting import ask, chat, gpt5_refusals, new_router, start_pair  # noqa: F401  fixtures among them
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


def restart_router(start_pair, router):  # noqa: F811
    return start_pair("new-cheap", "new-strong", models=router.app.worker.settings.models, home=router.home)


def run_learnt(home, *arguments):
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
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [FILE, f"{FILE}.lock"]


def test_lessons_are_limited_in_number_and_age(tmp_path):
    path = tmp_path / FILE
    add_lessons(path, [lesson(f"m{n}") for n in range(MAX_LESSONS + 5)], NOW)
    assert [entry.model for entry in read_lessons(path, NOW)] == [f"m{n}" for n in range(5, MAX_LESSONS + 5)]
    assert read_lessons(path, NOW + MAX_AGE_SECONDS) == ()
    add_lessons(path, [lesson("new", since=NOW + MAX_AGE_SECONDS)], NOW + MAX_AGE_SECONDS)
    assert len(json.loads(path.read_text())["lessons"]) == 1


def test_forgetting_a_model_includes_every_effort(tmp_path):
    path = tmp_path / FILE
    add_lessons(path, [lesson("m:low"), lesson("m"), lesson("m2"), lesson("n:low")], NOW)
    assert (forget_model(path, "m", NOW), forget_model(path, "n:low", NOW), forget_model(path, "x", NOW)) == (2, 1, 0)
    assert [entry.model for entry in read_lessons(path, NOW)] == ["m2"]


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
            % entry
            for entry in (
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


def test_a_lesson_outlives_the_router_and_is_shown(new_router, start_pair, gpt5_refusals, refusing_openai):  # noqa: F811
    first = ask(new_router, chat(max_tokens=9))
    model = first.headers["x-router-model"]
    lessons = httpx2.get(new_router.origin + "/health").json()["learnt"]
    host = refusing_openai.url.removeprefix("http://").partition("/")[0]
    assert [{**alert, "since": ""} for alert in lessons] == [
        {
            "model": model,
            "upstream": host,
            "endpoint": "chat/completions",
            "parameter": "max_tokens",
            "done": "sent as max_completion_tokens",
            "since": "",
        }
    ]
    assert httpx2.get(new_router.origin + "/router/overview").json()["learnt"] == lessons
    assert f'router_learnt_refusals{{model="{model}"}} 1.0' in httpx2.get(new_router.origin + "/metrics").text
    new_router.close()
    again = restart_router(start_pair, new_router)
    assert httpx2.get(again.origin + "/health").json()["learnt"] == lessons
    assert ask(again, chat(max_tokens=9)).headers["x-router-adapted"] == first.headers["x-router-adapted"]
    assert len(refusing_openai.refusals) == 1


def test_other_workers_learn_and_forget_lessons(new_router, start_pair, gpt5_refusals, refusing_openai):  # noqa: F811
    other = restart_router(start_pair, new_router)
    model = ask(new_router, chat(max_tokens=9)).headers["x-router-model"]
    assert until(lambda: other.app.worker.adapter.describe_lessons())
    ask(other, chat(max_tokens=9))
    assert len(refusing_openai.refusals) == 1
    listed = json.loads(run_learnt(new_router.home, "--json").stdout)
    assert listed == other.app.worker.adapter.describe_lessons() == new_router.app.worker.adapter.describe_lessons()
    assert "max_completion_tokens" in run_learnt(new_router.home).stdout
    result = run_learnt(new_router.home, "--forget", model)
    assert (result.exit_code, result.stderr) == (
        0,
        f"router: deleted 1 adaptation for {model}; a running router follows within two seconds\n",
    )
    assert until(
        lambda: not other.app.worker.adapter.describe_lessons() and not new_router.app.worker.adapter.describe_lessons()
    )
    ask(other, chat(max_tokens=9))
    assert len(refusing_openai.refusals) == 2
    assert str(run_learnt(new_router.home, "--forget", "nobody").exception).startswith(
        "no adaptations are stored for 'nobody'"
    )


def test_lessons_of_another_upstream_are_ignored(new_router, start_pair, refusing_openai):  # noqa: F811
    now = time.time()
    refusal = Refusal(RefusalKind.PARAMETER, ParameterRule("temperature"))
    add_lessons(
        new_router.home / FILE,
        [Lesson(name, "other:1", "chat/completions", refusal, now) for name in ("new-cheap", "new-strong")],
        now,
    )
    again = restart_router(start_pair, new_router)
    assert len(again.app.worker.adapter.describe_lessons()) == 2
    assert "x-router-adapted" not in ask(again, chat(temperature=0)).headers


def test_a_damaged_file_is_reported_and_the_router_serves(new_router, start_pair, gpt5_refusals, refusing_openai):  # noqa: F811
    (new_router.home / FILE).write_text("{")
    again = restart_router(start_pair, new_router)
    warned = httpx2.get(again.origin + "/health").json()["warnings"]
    assert any(FILE in warning and "damaged" in warning for warning in warned)
    assert ask(again, chat(max_tokens=9)).status_code == 200
    assert until(
        lambda: not any(FILE in warning for warning in httpx2.get(again.origin + "/health").json()["warnings"])
    )
    assert len(read_lessons(again.home / FILE, time.time())) == 1


def test_lessons_that_cannot_be_written_stay_in_memory_and_are_reported(
    new_router,  # noqa: F811
    gpt5_refusals,  # noqa: F811
    refusing_openai,
    monkeypatch,
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("router.shared_file.replace", full)
    ask(new_router, chat(max_tokens=9))
    assert until(lambda: any("No space left" in notice for notice in notices(new_router.app.worker)))
    ask(new_router, chat(max_tokens=9))
    assert len(refusing_openai.refusals) == 1
    monkeypatch.undo()
    assert until(
        lambda: (
            (new_router.home / FILE).exists()
            and not any("No space" in notice for notice in notices(new_router.app.worker))
        )
    )


@pytest.mark.skipif(find_browser() is None, reason="no Chromium is installed here")
def test_the_page_shows_lessons(new_router, gpt5_refusals, refusing_openai):  # noqa: F811
    browser = Browser()
    try:
        browser.open(new_router.origin + "/")
        browser.wait("document.querySelector('#state-text').textContent === 'Live'")
        assert browser.evaluate("document.querySelector('#learnt-card').hidden")
        ask(new_router, chat(max_tokens=9))
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

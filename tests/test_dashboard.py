"""The page at `/` in a real Chromium: it loads, it moves, and it can be used by keyboard and with a key."""

import shutil
import time
from pathlib import Path

import httpx2
import openai
import pytest
from browser import found
from fake_openai import json_answer
from made_outcomes import expected_policy
from made_records import made_record
from test_app import WHOLE
from test_overview import LENGTHS, PRICES, million
from test_real_requests import REQUESTS, send

from calibration.policies import write_policy
from router.client.issuing import add
from router.client.keyfile import Roster, write_roster
from router.exporter.shipper import Shipper
from router.exporter.shipping import drain
from router.journal.writer import Journal
from router.usage.tallies import Tallies

pytestmark = pytest.mark.skipif(found() is None, reason="no Chromium is installed here")

SUM = [{"role": "user", "content": "Tom has 3 apples and buys 5 more. How many apples does Tom have now?"}]
LIVE = "document.querySelector('#state-text').textContent === 'Live'"
ROWS = "document.querySelectorAll('#recent tbody tr.fresh').length"


@pytest.fixture(scope="module")
def a_million(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a month with a million requests."""
    path = tmp_path_factory.mktemp("month") / "tallies.db"
    million(path, time.time())
    return path


def export(home: Path) -> None:
    """What the exporter does for the page."""
    tallies = Tallies(home / "tallies.db", PRICES, lambda _: LENGTHS)
    drain([Shipper(home / "journal", "tallies", tallies)])
    tallies.close()


def ask(router, **fields: object) -> None:
    with openai.OpenAI(base_url=router.url, api_key="x", max_retries=0) as client:
        client.chat.completions.create(model="auto", messages=SUM, **fields)


def test_an_empty_router_shows_a_page_that_says_so(router, browser):
    browser.open(router.origin + "/")
    browser.wait(LIVE)
    assert browser.wait("document.querySelector('#headline').textContent.startsWith('No requests in the last hour')")
    assert f"{router.origin}/v1" in browser.text("#recent-empty")
    assert browser.errors == []


def test_a_request_of_the_official_client_arrives_and_explains_itself(router, browser):
    browser.open(router.origin + "/")
    browser.wait(LIVE)
    ask(router)
    browser.wait(f"{ROWS} === 1", 5)
    export(router.home)
    browser.wait("document.querySelector('#headline').textContent.includes('1 request')", 10)
    assert "$" in browser.text("#tiles") and browser.text("#types tbody th")
    browser.run("document.querySelector('#recent .open').focus()")
    browser.press("Enter", 13)
    told = browser.wait("document.querySelector('#recent .why .explained')?.innerText")
    record = router.records()[0]
    assert record["trace_id"] in told and record["question_type"] in told and record["policy_version"] in told
    assert browser.run("document.querySelector('#recent .open').getAttribute('aria-expanded')") == "true"
    ask(router)
    browser.wait(f"{ROWS} === 2", 5)  # and what was opened stays open, with the focus where it was
    assert browser.run("document.activeElement.getAttribute('aria-expanded')") == "true"
    assert browser.errors == []


def test_the_page_tells_what_a_request_was_read_as_in_numbers_alone(router, browser):
    httpx2.post(router.url + "/chat/completions", json=WHOLE)
    browser.open(router.origin + "/")
    browser.wait(f"{ROWS} === 1")
    browser.run("document.querySelector('#recent .open').click()")
    told = browser.wait("document.querySelector('#recent .why .read-as')?.innerText")
    record = router.records()[0]
    material, question = record["read_as"]["material_characters"], len("What is the weather in the city of Lindau?")
    assert told == (
        f"Classified as {record['question_type']}: a question of {question} characters with {material} characters of "
        "material and 1 worked example, asked in turn 2 of its conversation. 1 of 2 tools matches it."
    )
    reason = browser.text("#recent .why .verdict")
    assert record["model"] in reason and any(word in reason for word in ("is expected", "answers"))
    for text in ("weather", "Lindau", "harbour"):
        assert text not in browser.run("document.body.innerText")
    assert browser.errors == []


def test_the_page_tells_of_each_real_client_why_its_request_went_where_it_went(router, browser, openai_server):
    for body, _ in REQUESTS.values():
        send(router, openai_server, body)
    browser.open(router.origin + "/")
    browser.wait(f"{ROWS} === {len(REQUESTS)}")
    browser.run("for (const button of document.querySelectorAll('#recent .open')) button.click()")
    for number, record in enumerate(reversed(router.records(len(REQUESTS))), 1):
        row = f"#recent tbody tr.why:nth-of-type({2 * number})"
        verdict, read_as = browser.text(f"{row} .verdict"), browser.text(f"{row} .read-as")
        assert record["model"] in verdict and len(verdict.split()) > 10
        assert read_as.startswith(f"Classified as {record['question_type']}: a question of ")
    assert browser.errors == []


def test_a_record_from_before_this_was_told_is_shown_without_it(router, browser):
    journal = Journal(router.home / "journal")
    journal.append(made_record(1, gap=0.05, novelty=0.2))
    journal.close()
    browser.open(router.origin + "/")
    browser.wait(f"{ROWS} === 1")
    browser.run("document.querySelector('#recent .open').click()")
    told = browser.wait("document.querySelector('#recent .why .explained')?.innerText")
    assert "arithmetic" in told and "Classified as" not in told and "undefined" not in told
    assert browser.errors == []


def test_nothing_of_a_question_is_run_as_part_of_the_page(router, browser, openai_server):
    openai_server.say(json_answer({"error": {"message": "<img src=x onerror=alert(1)>"}}, 400))
    attack = {"model": "<img src=x onerror=alert(1)>", "messages": SUM}
    httpx2.post(router.url + "/chat/completions", json=attack)
    export(router.home)
    browser.open(router.origin + "/")
    browser.wait(f"{ROWS} === 1")
    browser.wait("document.querySelector('#tiles').innerText.includes('onerror')")
    assert browser.run("document.querySelectorAll('main img').length") == 0
    assert browser.errors == []


def test_a_prompt_can_be_tried_and_nothing_is_sent(router, browser, openai_server):
    browser.open(router.origin + "/")
    browser.wait(LIVE)
    browser.run("document.querySelector('#question').value = 'What is the capital of France?'")
    browser.run("document.querySelector('#try button').click()")
    told = browser.wait("document.querySelector('#tried .explained')?.innerText")
    assert "gpt-4o" in told and "Novelty" in told and "Evidence" in told
    assert "Words for the type" in told and "capital" in told
    assert "a question of 30 characters." in browser.text("#tried .read-as")
    assert "What is the capital of France?" in browser.text("#tried .facts")
    assert browser.run("document.querySelector('#tried').getAttribute('role')") == "status"
    assert not openai_server.received and browser.errors == []


def test_the_page_calls_expected_what_is_not_certified(serve, openai_server, browser, tmp_path):
    policy = expected_policy()
    write_policy(policy, tmp_path / "expected")
    target = max(rule.target for rule in policy.rules.targets if rule.falls_short is not None)
    router = serve(
        openai_base_url=openai_server.url,
        openai_api_key="sk-upstream",
        policy=str(tmp_path / "expected"),
        default_target=target,
    )
    browser.open(router.origin + "/")
    browser.wait(LIVE)
    assert "Expected, not certified" in browser.text("#curve-note")
    assert "%, expected" in browser.text("#target")
    browser.run("document.querySelector('#question').value = 'What is the capital of France?'")
    browser.run("document.querySelector('#try button').click()")
    told = browser.wait("document.querySelector('#tried .explained')?.innerText")
    assert "%, expected" in told and browser.errors == []


def test_a_key_opens_the_page_and_stays_in_its_tab(serve, openai_server, browser):
    router = serve(openai_base_url=openai_server.url, api_keys=["rk-of-the-tests-1"])
    browser.open(router.origin + "/")
    browser.wait("!document.querySelector('#key-form').hidden && document.querySelector('main').hidden")
    assert browser.run("document.activeElement.id") == "key"
    for key in ("rk-wrong", "rk-of-the-tests-1"):
        browser.run(f"document.querySelector('#key').value = '{key}'")
        browser.press("Enter", 13)
        if key == "rk-wrong":
            browser.wait("document.querySelector('#key-note').textContent.includes('does not accept')")
    browser.wait(LIVE)
    assert browser.run("document.querySelector('main').hidden") is False
    assert browser.run("[localStorage.length, document.cookie, location.href]") == [0, "", router.origin + "/"]
    refusals = [error for error in browser.errors if "401" not in error]  # the browser itself reports each 401
    assert refusals == []


def test_a_key_that_is_no_admin_is_told_so_and_an_admin_s_opens_the_page(serve, openai_server, browser, tmp_path):
    keys, some = add((), "ada", time.time())
    keys, owner = add(keys, "owner", time.time(), admin=True)
    (tmp_path / "home-0").mkdir()
    write_roster(tmp_path / "home-0" / "keys.json", Roster(keys))
    router = serve(openai_base_url=openai_server.url)
    router.app.worker.journal.append(made_record(1, key_id="ada"))
    browser.open(router.origin + "/")
    browser.wait("!document.querySelector('#key-form').hidden")
    browser.run(f"document.querySelector('#key').value = '{some}'")
    browser.press("Enter", 13)
    browser.wait("document.querySelector('#key-note').textContent.includes('admin')")
    assert browser.run("document.querySelector('main').hidden") is True
    browser.run(f"document.querySelector('#key').value = '{owner}'; document.querySelector('#key').focus()")
    browser.press("Enter", 13)
    browser.wait(LIVE)
    browser.wait("!!document.querySelector('#recent button.open')")
    browser.run("document.querySelector('#recent button.open').click()")
    assert "ada" in browser.wait("document.querySelector('#recent .explained')?.innerText")


def test_the_window_can_be_chosen_by_keyboard(router, browser):
    browser.open(router.origin + "/")
    browser.wait(LIVE)
    browser.run("document.querySelector('input[name=window]').focus()")
    browser.press("ArrowRight", 39)
    browser.wait("document.querySelector('#headline').textContent.includes('24 hours')")


@pytest.mark.parametrize(("width", "height", "dark"), [(320, 640, False), (390, 844, True), (1920, 1080, False)])
def test_a_million_requests_fit_every_screen(router, browser, a_million, width, height, dark):
    shutil.copy(a_million, router.home / "tallies.db")
    for n in range(60):
        router.app.worker.journal.append(made_record(n, question_type="a-type-with-a-very-long-name/" + "x" * 40))
    browser.look(width, height, dark=dark)
    browser.open(router.origin + "/")
    browser.wait(LIVE)
    browser.run("document.querySelector('input[value=month]').click()")
    browser.wait("document.querySelector('#headline').textContent.includes('30 days')", 10)
    browser.wait(f"{ROWS} === 50")
    assert browser.run("document.documentElement.scrollWidth") <= width  # tables scroll within themselves
    ink = browser.run("getComputedStyle(document.body).color")
    assert (int(ink.removeprefix("rgb(").split(",")[0]) > 127) is dark
    assert browser.errors == []


def test_those_who_hear_the_page_find_their_way(router, browser):
    ask(router)
    export(router.home)
    browser.open(router.origin + "/")
    browser.wait(f"{ROWS} === 1")
    browser.wait("document.querySelectorAll('#types tbody svg').length")
    assert browser.run("[...document.querySelectorAll('h1')].length") == 1
    unnamed = "[...document.querySelectorAll('svg[role=img]')].filter((s) => !s.getAttribute('aria-label')).length"
    assert browser.run(unnamed) == 0
    assert browser.run("[...document.querySelectorAll('table')].filter((t) => !t.caption).length") == 0
    labelled = "[...document.querySelectorAll('input, select, textarea')].filter((f) => !f.labels.length).length"
    assert browser.run(labelled) == 0
    assert browser.run("document.querySelector('#announce').getAttribute('aria-live')") == "polite"
    assert browser.run("[...document.querySelectorAll('main, header, footer')].length") == 3


def test_a_router_that_goes_away_is_told_and_found_again(serve, openai_server, browser):
    router = serve(openai_base_url=openai_server.url)
    browser.open(router.origin + "/")
    browser.wait(LIVE)
    router.close()
    browser.wait("document.querySelector('#state-text').textContent.startsWith('Router unreachable')", 15)


def test_each_upstream_of_a_model_says_whether_it_answers(browser, serve, openai_server):
    tables = [{"base_url": openai_server.url, "label": "good"}, {"base_url": openai_server.url, "label": "bad"}]
    router = serve(openai_base_url=openai_server.url, models={"gpt-4o": {"upstreams": tables}})
    router.app.worker.upstreams.endpoints("gpt-4o")[1].health.count(401, failed=True)
    browser.open(router.origin + "/")
    told = browser.wait(
        "!document.querySelector('#upstreams').hidden && document.querySelector('#upstreams').textContent"
    )
    assert told == "Upstreams: gpt-4o at good is available, gpt-4o at bad rejects its key (401)"

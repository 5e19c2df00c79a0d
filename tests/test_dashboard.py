"""The page at `/` in a real Chromium: it loads, updates, and is usable by keyboard and with a key."""

import shutil
import time
from pathlib import Path

import httpx2
import openai
import pytest
from browser import find_browser
from fake_openai import json_reply
from synthetic_outcomes import expected_policy
from synthetic_records import make_record
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

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium is installed here")

SUM = [{"role": "user", "content": "Tom has 3 apples and buys 5 more. How many apples does Tom have now?"}]
LIVE = "document.querySelector('#state-text').textContent === 'Live'"
ROWS = "document.querySelectorAll('#recent tbody tr.fresh').length"


@pytest.fixture(scope="module")
def a_million(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a million requests in a month."""
    path = tmp_path_factory.mktemp("month") / "tallies.db"
    million(path, time.time())
    return path


def export(home: Path) -> None:
    """Export the records to the tables that the page reads."""
    tallies = Tallies(home / "tallies.db", PRICES, lambda _: LENGTHS)
    drain([Shipper(home / "journal", "tallies", tallies)])
    tallies.close()


def ask(router, **fields: object) -> None:
    with openai.OpenAI(base_url=router.url, api_key="x", max_retries=0) as client:
        client.chat.completions.create(model="auto", messages=SUM, **fields)


def test_the_page_of_a_router_without_requests_says_so(router, browser):
    browser.open(router.origin + "/")
    browser.wait(LIVE)
    assert browser.wait("document.querySelector('#headline').textContent.startsWith('No requests in the last hour')")
    assert f"{router.origin}/v1" in browser.text("#recent-empty")
    assert browser.errors == []


def test_a_request_of_the_official_client_appears_with_its_explanation(router, browser):
    browser.open(router.origin + "/")
    browser.wait(LIVE)
    ask(router)
    browser.wait(f"{ROWS} === 1", 5)
    export(router.home)
    browser.wait("document.querySelector('#headline').textContent.includes('1 request')", 10)
    assert "$" in browser.text("#tiles") and browser.text("#types tbody th")
    browser.evaluate("document.querySelector('#recent .open').focus()")
    browser.press_key("Enter", 13)
    text = browser.wait("document.querySelector('#recent .why .explained')?.innerText")
    record = router.records()[0]
    assert record["trace_id"] in text and record["question_type"] in text and record["policy_version"] in text
    assert browser.evaluate("document.querySelector('#recent .open').getAttribute('aria-expanded')") == "true"
    ask(router)
    browser.wait(f"{ROWS} === 2", 5)  # opened rows stay open, and the focus does not move
    assert browser.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    assert browser.errors == []


def test_the_page_shows_the_question_as_read_in_numbers_only(router, browser):
    httpx2.post(router.url + "/chat/completions", json=WHOLE)
    browser.open(router.origin + "/")
    browser.wait(f"{ROWS} === 1")
    browser.evaluate("document.querySelector('#recent .open').click()")
    shown_text = browser.wait("document.querySelector('#recent .why .read-as')?.innerText")
    record = router.records()[0]
    material, question = record["read_as"]["material_characters"], len("What is the weather in the city of Lindau?")
    assert shown_text == (
        f"Classified as {record['question_type']}: a question of {question} characters with {material} characters of "
        "material and 1 worked example, asked in turn 2 of its conversation. 1 of 2 tools matches it."
    )
    reason = browser.text("#recent .why .verdict")
    assert record["model"] in reason and any(word in reason for word in ("is expected", "answers"))
    for text in ("weather", "Lindau", "harbour"):
        assert text not in browser.evaluate("document.body.innerText")
    assert browser.errors == []


def test_the_page_explains_the_decision_on_each_real_clients_request(router, browser, openai_server):
    for body, _ in REQUESTS.values():
        send(router, openai_server, body)
    browser.open(router.origin + "/")
    browser.wait(f"{ROWS} === {len(REQUESTS)}")
    browser.evaluate("for (const button of document.querySelectorAll('#recent .open')) button.click()")
    for number, record in enumerate(reversed(router.records(len(REQUESTS))), 1):
        row = f"#recent tbody tr.why:nth-of-type({2 * number})"
        verdict, read_as = browser.text(f"{row} .verdict"), browser.text(f"{row} .read-as")
        assert record["model"] in verdict and len(verdict.split()) > 10
        assert read_as.startswith(f"Classified as {record['question_type']}: a question of ")
    assert browser.errors == []


def test_a_record_of_an_older_version_is_shown_without_the_question_as_read(router, browser):
    journal = Journal(router.home / "journal")
    journal.append(make_record(1, gap=0.05, novelty=0.2))
    journal.close()
    browser.open(router.origin + "/")
    browser.wait(f"{ROWS} === 1")
    browser.evaluate("document.querySelector('#recent .open').click()")
    text = browser.wait("document.querySelector('#recent .why .explained')?.innerText")
    assert "arithmetic" in text and "Classified as" not in text and "undefined" not in text
    assert browser.errors == []


def test_the_page_executes_no_part_of_a_question(router, browser, openai_server):
    openai_server.enqueue(json_reply({"error": {"message": "<img src=x onerror=alert(1)>"}}, 400))
    attack = {"model": "<img src=x onerror=alert(1)>", "messages": SUM}
    httpx2.post(router.url + "/chat/completions", json=attack)
    export(router.home)
    browser.open(router.origin + "/")
    browser.wait(f"{ROWS} === 1")
    browser.wait("document.querySelector('#tiles').innerText.includes('onerror')")
    assert browser.evaluate("document.querySelectorAll('main img').length") == 0
    assert browser.errors == []


def test_a_prompt_can_be_tried_without_sending_it(router, browser, openai_server):
    browser.open(router.origin + "/")
    browser.wait(LIVE)
    browser.evaluate("document.querySelector('#question').value = 'What is the capital of France?'")
    browser.evaluate("document.querySelector('#try button').click()")
    text = browser.wait("document.querySelector('#tried .explained')?.innerText")
    assert "gpt-4o" in text and "Novelty" in text and "Evidence" in text
    assert "Words for the type" in text and "capital" in text
    assert "a question of 30 characters." in browser.text("#tried .read-as")
    assert "What is the capital of France?" in browser.text("#tried .facts")
    assert browser.evaluate("document.querySelector('#tried').getAttribute('role')") == "status"
    assert not openai_server.received and browser.errors == []


def test_the_page_marks_uncertified_targets_as_expected(start_router, openai_server, browser, tmp_path):
    policy = expected_policy()
    write_policy(policy, tmp_path / "expected")
    target = max(rule.target for rule in policy.rules.targets if rule.falls_short is not None)
    router = start_router(
        openai_base_url=openai_server.url,
        openai_api_key="sk-upstream",
        policy=str(tmp_path / "expected"),
        default_target=target,
    )
    browser.open(router.origin + "/")
    browser.wait(LIVE)
    assert "Expected, not certified" in browser.text("#curve-note")
    assert "%, expected" in browser.text("#target")
    browser.evaluate("document.querySelector('#question').value = 'What is the capital of France?'")
    browser.evaluate("document.querySelector('#try button').click()")
    text = browser.wait("document.querySelector('#tried .explained')?.innerText")
    assert "%, expected" in text and browser.errors == []


def test_a_key_opens_the_page_and_stays_in_its_tab(start_router, openai_server, browser):
    router = start_router(openai_base_url=openai_server.url, api_keys=["rk-of-the-tests-1"])
    browser.open(router.origin + "/")
    browser.wait("!document.querySelector('#key-form').hidden && document.querySelector('main').hidden")
    assert browser.evaluate("document.activeElement.id") == "key"
    for key in ("rk-wrong", "rk-of-the-tests-1"):
        browser.evaluate(f"document.querySelector('#key').value = '{key}'")
        browser.press_key("Enter", 13)
        if key == "rk-wrong":
            browser.wait("document.querySelector('#key-note').textContent.includes('does not accept')")
    browser.wait(LIVE)
    assert browser.evaluate("document.querySelector('main').hidden") is False
    assert browser.evaluate("[localStorage.length, document.cookie, location.href]") == [0, "", router.origin + "/"]
    refusals = [error for error in browser.errors if "401" not in error]  # the browser itself reports each 401
    assert refusals == []


def test_only_an_admin_key_opens_the_page(start_router, openai_server, browser, tmp_path):
    keys, user_key = add((), "ada", time.time())
    keys, owner = add(keys, "owner", time.time(), admin=True)
    (tmp_path / "home-0").mkdir()
    write_roster(tmp_path / "home-0" / "keys.json", Roster(keys))
    router = start_router(openai_base_url=openai_server.url)
    router.app.worker.journal.append(make_record(1, key_id="ada"))
    browser.open(router.origin + "/")
    browser.wait("!document.querySelector('#key-form').hidden")
    browser.evaluate(f"document.querySelector('#key').value = '{user_key}'")
    browser.press_key("Enter", 13)
    browser.wait("document.querySelector('#key-note').textContent.includes('admin')")
    assert browser.evaluate("document.querySelector('main').hidden") is True
    browser.evaluate(f"document.querySelector('#key').value = '{owner}'; document.querySelector('#key').focus()")
    browser.press_key("Enter", 13)
    browser.wait(LIVE)
    browser.wait("!!document.querySelector('#recent button.open')")
    browser.evaluate("document.querySelector('#recent button.open').click()")
    assert "ada" in browser.wait("document.querySelector('#recent .explained')?.innerText")


def test_the_window_can_be_chosen_by_keyboard(router, browser):
    browser.open(router.origin + "/")
    browser.wait(LIVE)
    browser.evaluate("document.querySelector('input[name=window]').focus()")
    browser.press_key("ArrowRight", 39)
    browser.wait("document.querySelector('#headline').textContent.includes('24 hours')")


@pytest.mark.parametrize(("width", "height", "dark"), [(320, 640, False), (390, 844, True), (1920, 1080, False)])
def test_a_million_requests_fit_every_screen(router, browser, a_million, width, height, dark):
    shutil.copy(a_million, router.home / "tallies.db")
    for n in range(60):
        router.app.worker.journal.append(make_record(n, question_type="a-type-with-a-very-long-name/" + "x" * 40))
    browser.look(width, height, dark=dark)
    browser.open(router.origin + "/")
    browser.wait(LIVE)
    browser.evaluate("document.querySelector('input[value=month]').click()")
    browser.wait("document.querySelector('#headline').textContent.includes('30 days')", 10)
    browser.wait(f"{ROWS} === 50")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width  # tables scroll within themselves
    ink = browser.evaluate("getComputedStyle(document.body).color")
    assert (int(ink.removeprefix("rgb(").split(",")[0]) > 127) is dark
    assert browser.errors == []


def test_the_page_is_usable_with_a_screen_reader(router, browser):
    ask(router)
    export(router.home)
    browser.open(router.origin + "/")
    browser.wait(f"{ROWS} === 1")
    browser.wait("document.querySelectorAll('#types tbody svg').length")
    assert browser.evaluate("[...document.querySelectorAll('h1')].length") == 1
    unnamed = "[...document.querySelectorAll('svg[role=img]')].filter((s) => !s.getAttribute('aria-label')).length"
    assert browser.evaluate(unnamed) == 0
    assert browser.evaluate("[...document.querySelectorAll('table')].filter((t) => !t.caption).length") == 0
    labelled = "[...document.querySelectorAll('input, select, textarea')].filter((f) => !f.labels.length).length"
    assert browser.evaluate(labelled) == 0
    assert browser.evaluate("document.querySelector('#announce').getAttribute('aria-live')") == "polite"
    assert browser.evaluate("[...document.querySelectorAll('main, header, footer')].length") == 3


def test_the_page_reports_a_stopped_router_and_reconnects(start_router, openai_server, browser):
    router = start_router(openai_base_url=openai_server.url)
    browser.open(router.origin + "/")
    browser.wait(LIVE)
    router.close()
    browser.wait("document.querySelector('#state-text').textContent.startsWith('Router unreachable')", 15)


def test_the_page_shows_the_state_of_each_upstream(browser, start_router, openai_server):
    tables = [{"base_url": openai_server.url, "label": "good"}, {"base_url": openai_server.url, "label": "bad"}]
    router = start_router(openai_base_url=openai_server.url, models={"gpt-4o": {"upstreams": tables}})
    router.app.worker.upstreams.endpoints("gpt-4o")[1].health.count(401, failed=True)
    browser.open(router.origin + "/")
    text = browser.wait(
        "!document.querySelector('#upstreams').hidden && document.querySelector('#upstreams').textContent"
    )
    assert text == "Upstreams: gpt-4o at good is available, gpt-4o at bad rejects its key (401)"

"""The keys on the page at `/`, in a real Chromium: added, used, limited, rotated and revoked."""

import json
import re

import openai
import pytest
from browser import find_browser
from test_keys import UPSTREAM, create_key, create_team

from router.client.keyfile import read_keys
from router.limits import standings
from router.settings import KEYS_FILE

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium is installed here")

SECRET = "document.querySelector('#secret-value').value"
ROW = "document.querySelector('#keys-table tr[data-name=ada]')"


@pytest.fixture
def open_page(start_router, openai_server, tmp_path, browser, monkeypatch):
    """The page of a router with an admin key, opened with it."""
    monkeypatch.setattr(standings, "LEAST_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(standings, "REST", 0)
    key = create_key(tmp_path / "home-0", "owner", admin=True)
    router = start_router(openai_base_url=openai_server.url, **UPSTREAM)
    browser.open(router.origin + "/")
    browser.wait("!document.querySelector('#key-form').hidden")
    browser.evaluate(
        f"document.querySelector('#key').value = '{key}'; document.querySelector('#key-form button').click()"
    )
    browser.wait("document.querySelectorAll('#keys-table tbody tr').length === 1")
    return router


def fill(browser, **values):
    for name, value in values.items():
        browser.evaluate(f"document.querySelector('#add-key [name={name}]').value = {json.dumps(value)}")


def click(browser, selector):
    browser.evaluate(f"document.querySelector({json.dumps(selector)}).click()")


def chat(router, key):
    with openai.OpenAI(base_url=router.url, api_key=key, max_retries=0) as client:
        return client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}], max_tokens=9)


def test_a_key_is_added_used_limited_rotated_and_revoked_on_the_page(open_page, browser):
    click(browser, "#new-key")
    assert browser.evaluate("document.activeElement.id") == "key-name"
    fill(browser, name="ada", models="gpt-4o", requests_a_minute="2", usd_a_day="minus one")
    click(browser, "#add-key-form button[type=submit]")
    assert "usd_a_day: expected dollars" in browser.wait("document.querySelector('#add-key-problem').textContent")
    fill(browser, usd_a_day="0.001")
    click(browser, "#add-key-form button[type=submit]")
    secret = browser.wait(SECRET)
    assert re.fullmatch(r"sk-router-[A-Za-z0-9_-]{43}", secret)
    browser.wait(f"{ROW} && !document.querySelector('#add-key').open")
    for _ in range(2):
        assert chat(open_page, secret).choices
    with pytest.raises(openai.RateLimitError, match="Limit 2"):
        chat(open_page, secret)

    click(browser, "#keys-table tr[data-name=ada] .rotate")
    browser.evaluate("document.querySelector('#confirm-grace').value = '1h'")
    click(browser, "#confirm-action")
    new = browser.wait(f"{SECRET} !== {json.dumps(secret)} && {SECRET}")
    browser.wait("!document.querySelector('#confirm').open")
    with pytest.raises(openai.RateLimitError, match="Limit 2"):
        chat(open_page, new)
    text = browser.wait(f"{ROW}.innerText.includes(' ago') && {ROW}.innerText")
    assert "2 requests per minute" in text and "gpt-4o" in text and " of $0.0010" in text
    assert browser.evaluate(f"{ROW}.querySelector('.shares').getAttribute('aria-label')").endswith("%")
    click(browser, "#secret-done")
    page = browser.evaluate("document.documentElement.outerHTML") + browser.evaluate("JSON.stringify(sessionStorage)")
    assert secret not in page and new not in page and browser.evaluate(SECRET) == ""

    click(browser, "#keys-table tr[data-name=ada] .revoke")
    click(browser, "#confirm .cancel")
    assert read_keys(open_page.home / KEYS_FILE)[1].revoked_unix is None
    click(browser, "#keys-table tr[data-name=ada] .revoke")
    assert "cannot be undone" in browser.text("#confirm-text")
    click(browser, "#confirm-action")
    browser.wait(f"{ROW}.classList.contains('ended')")
    for key_text in (secret, new):
        with pytest.raises(openai.AuthenticationError, match="was revoked"):
            chat(open_page, key_text)
    assert browser.evaluate(f"{ROW}.querySelectorAll('button').length") == 0
    expected = ("400", "429", "401")  # the browser logs the answers that refuse
    assert [error for error in browser.errors if not any(code in error for code in expected)] == []


def test_the_keys_fit_the_window(open_page, browser):
    create_team(open_page.home, "a-team-with-a-rather-long-name", usd_a_day=20, usd_a_month=200, requests_a_minute=600)
    models = ("auto", "gpt-4o-mini", "gpt-6-luna")
    create_key(open_page.home, "a-key-with-a-rather-long-name", models=models, team="a-team-with-a-rather-long-name")
    browser.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # which asks at once
    browser.wait("document.querySelectorAll('#keys-table tbody tr').length === 2")
    team = browser.wait("document.querySelector('#teams-table tbody tr')?.innerText")
    for text_part in (
        "a-team-with-a-rather-long-name",
        " of $20",
        " of $200",
        "600 requests per minute",
        "a-key-with-a",
    ):
        assert text_part in team, text_part
    assert "team a-team-with" in browser.text("#keys-table tr[data-name=a-key-with-a-rather-long-name]")
    for width in (1280, 400):
        browser.look(width, 900)
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth") is True
        tables = [f"document.querySelector('#{name}-table').parentElement" for name in ("keys", "teams")]
        for inside in (*tables, "document.querySelector('#add-key')"):
            click(browser, "#new-key")
            assert browser.evaluate(f"{inside}.scrollWidth <= {inside}.clientWidth") is True, (width, inside)
            browser.evaluate("document.querySelector('#add-key').close()")
        click(browser, "#new-key")
        assert (
            browser.evaluate("document.querySelector('#add-key').getBoundingClientRect().right <= innerWidth") is True
        )
        fields = "[...document.querySelectorAll('#add-key .fields label')]"
        assert browser.evaluate(f"{fields}.every((label) => label.scrollWidth <= label.clientWidth)") is True
        browser.evaluate("document.querySelector('#add-key').close()")


def test_a_page_without_keys_explains_how_to_create_the_first(start_router, openai_server, browser):
    router = start_router(openai_base_url=openai_server.url, **UPSTREAM)
    browser.open(router.origin + "/")
    assert "keys add NAME --admin" in browser.wait("document.querySelector('#keys-note').textContent")
    assert browser.evaluate("document.querySelector('#new-key').hidden") is True and browser.errors == []

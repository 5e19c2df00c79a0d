"""Alerts in the log, on the page, in the metrics and by webhook: each is sent once, and no request waits for it."""

import json
import subprocess
import sys
import time

import httpx2
import pytest
from command_line import run
from corporate_proxy import CorporateProxy
from fake_openai import FakeOpenAI, Reply, completion, json_reply
from test_keys import OWNER, UPSTREAM, ask, create_key
from waiting import until

from router.alerts import webhook
from router.alerts.alert import Alert
from router.alerts.alerts import MOST_WAITING, Alerts, send_test
from router.alerts.record import FAILED, SENT, UNSENT, AlertRecord
from router.client.keyfile import Limits, Owner
from router.limits.account import Account
from router.limits.budgets import Budgets
from router.settings import SettingsError, load

PATH = "/services/T0/geheim-123?token=geheim-456"
MODEL = "gpt-4o"
ADA = Owner("key", "ada")


@pytest.fixture
def receiver():
    """A webhook receiver that answers 200."""
    server = FakeOpenAI()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    monkeypatch.setattr(webhook, "RETRY_SECONDS", (0.05, 0.05, 0.05))


def settings(tmp_path, receiver, **fields):
    return load(home=tmp_path / "home", alert_webhook=f"http://127.0.0.1:{receiver.port}{PATH}", **fields)


def posted(receiver):
    return [request for request in receiver.received if request.target.startswith("/services")]


def test_an_alert_is_posted_in_the_documented_format_and_stored(tmp_path, receiver):
    alerts = Alerts(settings(tmp_path, receiver))
    alerts.alert("drifted", "gpt-4o", "gpt-4o answers otherwise", {"share": 0.4, "n": 50}, occasion="2026-11-28")
    alerts.close()
    (post,) = posted(receiver)
    assert (post.method, post.target, post.header("content-type")) == ("POST", PATH, "application/json")
    body = post.json
    assert body["text"] == "Router: gpt-4o answers otherwise" and len(body["id"]) == 32
    assert (body["kind"], body["subject"], body["fields"]) == ("drifted", "gpt-4o", {"share": 0.4, "n": 50})
    assert abs(time.time() - time.mktime(time.strptime(body["at"], "%Y-%m-%dT%H:%M:%SZ")) + time.timezone) < 30
    (raised,) = alerts.recent()
    assert raised.delivery == SENT and raised.alert.text == "gpt-4o answers otherwise"


def test_the_same_alert_is_sent_once_across_restarts_and_processes(tmp_path, receiver):
    several = [Alerts(settings(tmp_path, receiver)) for _ in range(4)]
    for _ in range(3):
        for entry in several:
            entry.alert("budget", "ada", "half is spent", occasion="2026-11-28 50%")
    for entry in several:
        entry.close()
    again = Alerts(settings(tmp_path, receiver))
    again.alert("budget", "ada", "half is spent, in other words", occasion="2026-11-28 50%")
    again.alert("budget", "ada", "half is spent", occasion="2026-11-29 50%")
    again.close()
    assert [post.json["text"] for post in posted(receiver)] == ["Router: half is spent"] * 2


def test_an_alert_is_deleted_when_it_can_no_longer_be_repeated(tmp_path):
    now, record = time.time(), AlertRecord(tmp_path)
    for days in (2, 40):
        assert record.is_first(made_alert(occasion=f"{days}", unix=now, keep_until_unix=now + days * 86_400))
    (tmp_path / "alerts" / "torn.json").write_text("")
    record.tidy(now + 3 * 86_400)
    assert [entry.alert.occasion for entry in record.all()] == ["40"]
    record.tidy(now + 80 * 86_400)
    assert list((tmp_path / "alerts").iterdir()) == []


def made_alert(**fields):
    return Alert(**{"kind": "test", "subject": "x", "text": "x", **fields})


def test_another_process_does_not_repeat_an_alert(tmp_path, receiver):
    code = (
        "from router.settings import load; from router.alerts.alerts import Alerts; import sys; a = Alerts(load());"
        "a.alert('drifted', 'm', 'it drifted'); a.close(); assert 'fastapi' not in sys.modules"
    )
    configured = settings(tmp_path, receiver)
    environment = {"PYTHONPATH": ":".join(sys.path), "ROUTER_HOME": str(configured.home)}
    environment["ROUTER_ALERT_WEBHOOK"] = configured.alert_webhook.get_secret_value()
    running = [subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=tmp_path) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert len(posted(receiver)) == 1


@pytest.mark.parametrize(
    ("answers", "posts", "delivery"),
    [
        ([500, 503], 3, SENT),
        ([429], 2, SENT),
        ([500] * 4, 4, FAILED),
        ([404], 1, FAILED),
        ([302], 1, FAILED),
    ],
)
def test_temporary_errors_are_retried_three_times_and_redirects_are_not_followed(
    tmp_path, receiver, answers, posts, delivery
):
    redirect = (("location", "/elsewhere"), ("content-type", "text/plain"))
    receiver.enqueue(*(Reply(status, redirect if status == 302 else ()) for status in answers))
    alerts = Alerts(settings(tmp_path, receiver))
    alerts.alert("test", "x", "x")
    assert until(lambda: alerts.recent() and alerts.recent()[0].delivery == delivery)
    assert len(receiver.received) == posts == len(posted(receiver))
    assert len({post.body for post in receiver.received}) == 1
    alerts.close()


def test_an_unreachable_receiver_is_logged_without_its_address(tmp_path, caplog):
    gone = FakeOpenAI()
    gone.close()
    configured = settings(tmp_path, gone)
    alerts = Alerts(configured)
    alerts.alert("budget", "ada", "all is spent")
    assert until(lambda: alerts.recent() and alerts.recent()[0].delivery == FAILED)
    alerts.close()
    assert "alert: all is spent" in caplog.text and "rejected the alert about ada: no answer" in caplog.text
    stored_bytes = b"".join(path.read_bytes() for path in configured.home.rglob("*") if path.is_file())
    for text in (caplog.text, stored_bytes.decode(), repr(configured), repr(vars(alerts)), repr(alerts._webhook)):
        assert "geheim" not in text


@pytest.mark.parametrize(
    "url", ["hooks.example/geheim", "ftp://h/geheim", "https://ada:geheim@h/", "https:///geheim", "https://h/geheim x"]
)
def test_an_invalid_address_is_rejected_and_not_printed(url):
    with pytest.raises(SettingsError, match="ROUTER_ALERT_WEBHOOK") as error:
        load(alert_webhook=url)
    assert "geheim" not in str(error.value)


def test_a_slow_receiver_blocks_nobody_and_the_queue_is_bounded(tmp_path, receiver, caplog):
    receiver.enqueue(Reply(wait=30.0))
    alerts = Alerts(settings(tmp_path, receiver))
    start = time.monotonic()
    for number in range(MOST_WAITING + 20):
        alerts.alert("test", str(number), f"alert {number}")
    assert time.monotonic() - start < 1.0
    assert "other alerts are queued" in caplog.text
    alerts.close(0.1)


def test_an_alert_is_sent_despite_a_full_disk(tmp_path, receiver):
    configured = settings(tmp_path, receiver)
    configured.home.write_text("a file, and no folder")
    alerts = Alerts(configured)
    alerts.alert("test", "x", "x")
    alerts.close()
    assert len(posted(receiver)) == 1


def test_alerts_go_through_the_proxy(tmp_path, receiver):
    proxy = CorporateProxy({"hooks.test": receiver.port}, "ada:secret")
    configured = load(
        home=tmp_path, alert_webhook="http://hooks.test" + PATH, proxy=f"http://ada:secret@{proxy.address}"
    )
    alerts = Alerts(configured)
    alerts.alert("test", "x", "x")
    alerts.close()
    proxy.close()
    assert len(proxy.forwarded) == 1 and len(receiver.received) == 1


def test_the_command_posts_a_test_alert(tmp_path, receiver):
    url = f"http://127.0.0.1:{receiver.port}{PATH}"
    result = run("router", "alert", "--test", cwd=tmp_path, ROUTER_HOME=str(tmp_path), ROUTER_ALERT_WEBHOOK=url)
    assert (result.returncode, result.stderr) == (0, "router: the webhook accepted the test alert\n")
    assert posted(receiver)[0].json["kind"] == "test"
    receiver.enqueue(Reply(404))
    assert send_test(settings(tmp_path, receiver)) == "it answered 404"
    with pytest.raises(SettingsError, match="no webhook is set"):
        send_test(load())


# budgets


class RecordedAlerts(list):
    def alert(self, kind, subject, text, fields=None, *, occasion="", until_unix=None):
        assert until_unix > time.time() + 86_400
        self.append((subject, fields["period"], fields["share"], occasion))


class OneAccount:
    def __init__(self, now, **limits):
        account = Account(ADA, now)
        account.limit(Limits(**limits))
        self.accounts = {ADA: account}
        self.day, self.month = account.day, account.month


def test_each_share_of_a_budget_alerts_once_and_the_highest_share_wins():
    limiter, alerts = OneAccount(time.time_ns(), usd_a_day=10.0, usd_a_month=100.0), RecordedAlerts()
    budgets = Budgets(limiter, alerts)
    for spent_usd in (4.99, 5.0, 5.1, 8.0, 8.2, 10.0, 10.5):
        limiter.day.spent_usd = limiter.month.spent_usd = spent_usd
        budgets.look()
    limiter.month.spent_usd = 99.0
    budgets.look()
    assert [alert[1:3] for alert in alerts] == [("day", 0.5), ("day", 0.8), ("day", 1.0), ("month", 0.8)]
    limiter.accounts[ADA].limit(Limits(usd_a_day=20.0))  # a changed budget alerts again
    budgets.look()
    assert alerts[-1][1:3] == ("day", 0.5) and len({alert[3] for alert in alerts}) == 5


def test_a_nearly_spent_budget_that_rejects_requests_is_reported_as_spent():
    limiter, alerts = OneAccount(time.time_ns(), usd_a_day=10.0, usd_a_month=100.0), RecordedAlerts()
    budgets = Budgets(limiter, alerts)
    limiter.day.spent_usd = 7.0
    budgets.refused(ADA)  # one request asks for too much, while much of the budget is left
    budgets.refused(("team", "ada"))
    budgets.look()
    assert [alert[1:3] for alert in alerts] == [("day", 0.5)]
    limiter.day.spent_usd = 9.9
    budgets.refused(ADA)
    budgets.look()
    assert [alert[1:3] for alert in alerts] == [("day", 0.5), ("day", 1.0)]
    limiter.accounts[ADA].limit(Limits(usd_a_day=100.0))  # the larger budget has refused nothing
    budgets.look()
    assert len(alerts) == 2


@pytest.mark.parametrize(
    ("spent_usd", "text"),
    [
        (10.004, "key ada has spent $10.00 of $10 a day; its requests are refused until "),
        (9.9, "key ada has spent $9.90 of $10 a day; requests that may cost more than the rest are refused until "),
        (8.0, "key ada has spent $8.00 of $10 a day, which is 80% or more; the day ends at "),
    ],
)
def test_an_alert_says_which_requests_are_refused(spent_usd, text):
    texts = []

    class Texts(RecordedAlerts):
        def alert(self, kind, subject, text, *_, **__):
            texts.append(text)

    limiter = OneAccount(time.time_ns(), usd_a_day=10.0)
    budgets = Budgets(limiter, Texts())
    limiter.day.spent_usd = spent_usd
    if spent_usd != 8.0:
        budgets.refused(ADA)
    budgets.look()
    assert [line.startswith(text) for line in texts] == [True]


def chat(router, key):
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 4000}
    headers = {"authorization": f"Bearer {key}"}
    return httpx2.post(router.url + "/chat/completions", json=body, headers=headers, timeout=60)


def test_a_key_that_spends_its_budget_alerts_by_webhook_page_and_metrics_once(
    start_router, openai_server, receiver, tmp_path, caplog
):
    key = create_key(tmp_path / "home-0", "ada", limits=Limits(usd_a_day=0.10))
    webhook_url = f"http://127.0.0.1:{receiver.port}{PATH}"
    router = start_router(openai_base_url=openai_server.url, api_keys=[OWNER], alert_webhook=webhook_url, **UPSTREAM)
    costly = completion(MODEL, prompt_tokens=20, completion_tokens=4000)  # $0.04
    costly["usage"].pop("prompt_tokens_details", None)
    openai_server.enqueue(*(json_reply(costly) for _ in range(3)))
    statuses = []
    for shares in ([], [0.8], [1.0]):
        statuses.append(chat(router, key).status_code)
        expected = 1 + len(shares) if shares else 0
        router.app.worker.budgets.look()
        if expected:
            assert until(lambda shares=shares: shares[0] in [p.json["fields"]["share"] for p in posted(receiver)])
    assert statuses == [200, 200, 429]
    posts = posted(receiver)
    assert [post.json["fields"]["share"] for post in posts] == [0.8, 1.0]
    assert posts[1].json["text"].startswith("Router: key ada has spent $0.08 of $0.1 a day; requests that may")
    page = ask(router, "/router/overview", OWNER).json()["warnings"]
    assert sum("key ada has spent" in line for line in page) == 2
    health = httpx2.get(router.origin + "/health").json()["warnings"]
    assert any("2 alerts in the last day (budget)" in line for line in health) and "ada" not in json.dumps(health)
    metrics = ask(router, "/metrics", OWNER).text
    assert 'router_alerts{delivery="sent",kind="budget"} 2.0' in metrics
    assert 'router_warnings{about="alerts"} 2.0' in metrics
    assert router.app.worker.alerts.all()[0].delivery == SENT and "geheim" not in caplog.text + metrics + str(page)
    again = Alerts(router.app.worker.settings)  # as after a restart
    restarted = Budgets(router.app.worker.limiter, again)
    restarted.refused(ADA)
    restarted.look()
    again.close()
    assert len(posted(receiver)) == 2


def test_without_a_webhook_an_alert_is_on_the_page(tmp_path):
    alerts = Alerts(load(home=tmp_path))
    alerts.alert("budget", "ada", "half is spent")
    alerts.close()
    assert [(entry.delivery, entry.alert.text) for entry in AlertRecord(tmp_path).all()] == [(UNSENT, "half is spent")]

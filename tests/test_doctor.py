"""`python -m router doctor` against real servers, folders and databases: its findings and remedies."""

import datetime as dt
import json
import shutil
import sqlite3
import time
from email.utils import format_datetime

import pytest
from command_line import run
from corporate_proxy import CorporateProxy
from fake_openai import FakeOpenAI, Reply, json_reply
from test_upstream_tls import TlsFront, certificate, x509

from router.client.issuing import add, revoke
from router.client.keyfile import Roster, write_roster
from router.commands.doctor.checks import findings
from router.commands.doctor.finding import State
from router.commands.doctor.machine import client_keys, disk_free, home_writable
from router.commands.doctor.stores import database
from router.commands.doctor.stores import mlflow_store as store_in
from router.policy.distribution import SHIPPED
from router.policy.network import Network
from router.policy.prediction import IS_COMPILED
from router.settings import load

KEY = "sk-proj-right-0123456789abcdef"
OK, WARNING, PROBLEM, SKIPPED = State
SUBJECTS = (
    *("settings", "upstream", "key", "clock", "policy", "prices", "prediction"),
    *("home folder", "disk", "client keys", "MLflow store", "usage database"),
)
UNCOMPILED = {} if IS_COMPILED else {"prediction": WARNING}  # where there is no compiler


def mlflow_store(uri):
    """The finding on a store that is reached without a proxy."""
    return store_in(uri, Network())


class KeyedOpenAI(FakeOpenAI):
    """Lists its models if the key is valid; its error repeats an invalid key, as some servers do."""

    def _next(self, request):
        credential = request.header("authorization")
        if request.target == "/v1/models" and credential != f"Bearer {KEY}":
            return json_reply({"error": {"message": f"Incorrect API key provided: {credential}"}}, 401)
        return super()._next(request)


@pytest.fixture
def keyed():
    server = KeyedOpenAI()
    yield server
    server.close()


@pytest.fixture
def run_doctor(tmp_path, monkeypatch):
    """A function that runs doctor in a folder with these settings; returns the findings by subject."""
    monkeypatch.chdir(tmp_path)

    def examine(**environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        found = list(findings())
        assert len({finding.subject for finding in found}) == len(found)
        assert not [line for line in map(str, found) if "\n" in line]
        return {finding.subject: finding for finding in found}

    return examine


def states_of(findings):
    return {subject: finding.state for subject, finding in findings.items()}


def test_a_complete_configuration_has_no_problem(run_doctor, keyed, tmp_path):
    findings = run_doctor(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=keyed.url)
    assert states_of(findings) == dict.fromkeys(SUBJECTS, OK) | {"clock": SKIPPED, **UNCOMPILED}
    assert not list(tmp_path.iterdir()), "something was made"


def test_without_a_key_doctor_reports_simulated_answers(run_doctor):
    findings = run_doctor()
    assert findings["upstream"].state == WARNING and "OPENAI_API_KEY" in findings["upstream"].remedy
    assert "key" not in findings and PROBLEM not in states_of(findings).values()


@pytest.mark.parametrize("key", ["sk-proj-wrong-0123456789abcdef", ""])
def test_a_rejected_key_is_a_problem_and_is_not_printed(keyed, tmp_path, key):
    environment = {"OPENAI_BASE_URL": keyed.url, **({"OPENAI_API_KEY": key} if key else {})}
    result = run("router", "doctor", cwd=tmp_path, **environment)
    assert result.returncode == 1
    message = "the upstream rejects it (401)" if key else "not set, but the upstream requires one (401)"
    assert f"problem  key: {message}. Set OPENAI_API_KEY" in result.stdout
    assert "ok       upstream: " in result.stdout and f"Problems: 1. Warnings: {len(UNCOMPILED)}." in result.stdout
    assert "wrong" not in result.stdout + result.stderr


def test_the_command_exits_with_0_without_problems_and_prints_no_key(keyed, tmp_path):
    result = run("router", "doctor", cwd=tmp_path, OPENAI_BASE_URL=keyed.url, OPENAI_API_KEY=KEY)
    assert result.returncode == 0 and "ok       key: accepted\n" in result.stdout
    assert "right" not in result.stdout + result.stderr


@pytest.mark.parametrize("key", [KEY + "\n", " " + KEY, "sk-ключ", " "])
def test_a_key_with_invalid_characters_is_a_problem_and_is_not_sent(run_doctor, keyed, key):
    findings = run_doctor(OPENAI_API_KEY=key, OPENAI_BASE_URL=keyed.url)
    assert findings["key"].state == PROBLEM and "upstream" not in findings
    assert keyed.open_connections == 0


@pytest.mark.parametrize(
    ("answer", "upstream", "key"),
    [
        (json_reply({"error": {}}, 403), OK, WARNING),
        (json_reply({"error": {}}, 429), OK, WARNING),
        (json_reply({"error": {}}, 404), WARNING, SKIPPED),
        (json_reply({"error": {}}, 503), PROBLEM, SKIPPED),
        (json_reply({}, 301, location="https://example.org/v1/models"), PROBLEM, SKIPPED),
        (Reply(pieces=(b"<html>",)), WARNING, OK),
        (Reply(pieces=(b"[" * 100_000,)), WARNING, OK),
        (json_reply(["gpt-4o"]), WARNING, OK),
    ],
    ids=lambda value: value.status if isinstance(value, Reply) else None,
)
def test_each_status_of_the_model_list_has_its_own_finding(run_doctor, openai_server, answer, upstream, key):
    openai_server.models = answer
    findings = run_doctor(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=openai_server.url)
    assert (findings["upstream"].state, findings["key"].state) == (upstream, key)
    assert findings["upstream"].remedy or upstream == OK


@pytest.mark.parametrize("end", ["early", "reset"])
def test_an_interrupted_answer_is_a_problem(run_doctor, openai_server, end):
    openai_server.models.end = end
    findings = run_doctor(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=openai_server.url)
    assert (findings["upstream"].state, findings["key"].state) == (PROBLEM, SKIPPED)


@pytest.mark.parametrize("stalled", [{"wait": 60.0}, {"end": "stall"}], ids=["head", "body"])
def test_a_silent_upstream_times_out_after_five_seconds(run_doctor, openai_server, stalled):
    for name, value in stalled.items():
        setattr(openai_server.models, name, value)
    start = time.monotonic()
    findings = run_doctor(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=openai_server.url)
    assert findings["upstream"].state == PROBLEM and "no answer within 5 s" in findings["upstream"].message
    assert 4.9 < time.monotonic() - start < 15


def test_an_unreachable_upstream_does_not_stop_other_checks(run_doctor, closed_port):
    findings = run_doctor(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=f"http://127.0.0.1:{closed_port}/v1")
    others = {"upstream": PROBLEM, "key": SKIPPED, "clock": SKIPPED, **UNCOMPILED}
    assert states_of(findings) == dict.fromkeys(SUBJECTS, OK) | others
    assert "OPENAI_BASE_URL" in findings["upstream"].remedy


def test_the_finding_on_an_untrusted_certificate_says_how_to_trust_it(run_doctor, openai_server, tmp_path, monkeypatch):
    chain, trusted = certificate(tmp_path, x509.DNSName("localhost"))
    front = TlsFront(chain, openai_server.port)
    try:
        address = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"https://localhost:{front.port}/v1"}
        findings = run_doctor(**address)
        assert findings["upstream"].state == PROBLEM and "SSL_CERT_FILE" in findings["upstream"].remedy
        assert run_doctor(**address, SSL_CERT_FILE=str(trusted))["upstream"].state == OK
    finally:
        front.close()


def test_with_forwarded_client_keys_the_router_needs_no_key(run_doctor, keyed):
    findings = run_doctor(OPENAI_BASE_URL=keyed.url, ROUTER_FORWARD_CLIENT_KEYS="true")
    assert findings["key"].state == OK and "clients send their own" in findings["key"].message


def test_every_model_with_its_own_upstream_or_key_is_checked_once(run_doctor, keyed, openai_server):
    models = {
        "local": {"base_url": openai_server.url},
        "other-name": {"base_url": openai_server.url},
        "own-key": {"api_key": "sk-wrong"},
        "same": {"name": "gpt-4o"},
    }
    findings = run_doctor(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=keyed.url, ROUTER_MODELS=json.dumps(models))
    checked_states = {
        subject: finding.state for subject, finding in findings.items() if subject.startswith(("upstream", "key"))
    }
    assert checked_states == {
        "upstream": OK,
        "key": OK,
        "upstream of models.local": OK,
        "key of models.local": OK,
        "upstream of models.own-key": OK,
        "key of models.own-key": PROBLEM,
    }


def test_each_upstream_of_a_model_is_checked_by_its_label(run_doctor, keyed, closed_port, monkeypatch):
    tables = [
        {"base_url": keyed.url, "api_key": KEY, "label": "good"},
        {"base_url": keyed.url, "api_key": "sk-wrong", "label": "bad"},
        {"base_url": f"http://127.0.0.1:{closed_port}/v1", "api_key": "sk-3"},
    ]
    monkeypatch.setenv("ROUTER_MODELS", json.dumps({name: {"upstreams": tables} for name in ("gpt-4o", "gpt-4o-mini")}))
    findings = run_doctor(OPENAI_API_KEY="sk-default", OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    expected = {subject: state for subject, state in states_of(findings).items() if "models." in subject}
    assert expected == {
        "upstream of models.gpt-4o (good)": OK,
        "key of models.gpt-4o (good)": OK,
        "upstream of models.gpt-4o (bad)": OK,
        "key of models.gpt-4o (bad)": PROBLEM,
        f"upstream of models.gpt-4o (127.0.0.1:{closed_port})": PROBLEM,
        f"key of models.gpt-4o (127.0.0.1:{closed_port})": SKIPPED,
    }


@pytest.mark.parametrize(
    ("seconds", "state", "expected"),
    [
        (0, OK, "matches"),
        (20, OK, "matches"),
        (-20, OK, "matches"),
        (100, WARNING, "s behind the upstream's"),
        (-100, WARNING, "s ahead of the upstream's"),
    ],
)
def test_the_clock_is_compared_with_the_upstreams(run_doctor, openai_server, seconds, state, expected):
    upstream_time = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    openai_server.models.headers = [
        *openai_server.models.headers,
        ("date", format_datetime(upstream_time, usegmt=True)),
    ]
    findings = run_doctor(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=openai_server.url)["clock"]
    assert findings.state == state and expected in findings.message


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Foo 2026 25:61:61 GMT"])
def test_an_invalid_date_is_not_compared(run_doctor, openai_server, date):
    openai_server.models.headers = [*openai_server.models.headers, ("date", date)]
    assert run_doctor(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=openai_server.url)["clock"].state == SKIPPED


@pytest.mark.parametrize(
    "environment",
    [
        {"ROUTER_MAX_ATTEMPTS": "none"},
        {"OPENAI_BASE_URL": "localhost:8080"},
        {"ROUTER_API_KEYS": "short"},
        {"OPENAI_BASE_URL": "https://ada:secret@example.org/v1"},
    ],
)
def test_invalid_settings_are_the_only_finding(run_doctor, environment):
    (findings,) = run_doctor(**environment).values()
    assert findings.state == PROBLEM and "secret" not in str(findings)
    assert findings.subject == "settings" and next(iter(environment)) in findings.message


def test_the_finding_on_settings_names_the_file(run_doctor, tmp_path):
    (tmp_path / "router.toml").write_text('home = "there"\n')
    findings = run_doctor()
    assert "router.toml and the environment" in findings["settings"].message
    assert str(tmp_path / "there") in findings["home folder"].message


def test_an_unreadable_configured_policy_is_a_problem(run_doctor, tmp_path):
    findings = run_doctor(ROUTER_POLICY=str(tmp_path / "nowhere"))
    assert findings["policy"].state == PROBLEM and "nowhere" in findings["policy"].message and "prices" not in findings


def test_an_unreadable_promoted_policy_is_a_warning(run_doctor, tmp_path):
    (tmp_path / ".router" / "policy").mkdir(parents=True)
    (tmp_path / ".router" / "policy" / "policy.json").write_text("{}")
    findings = run_doctor()
    assert findings["policy"].state == WARNING and "rollback" in findings["policy"].remedy


def test_a_model_of_the_policy_without_a_price_is_named(run_doctor, tmp_path):
    without_answers = shutil.ignore_patterns("answers.*")  # they are models of the policy
    shutil.copytree(SHIPPED, tmp_path / "policy", ignore=without_answers)
    document = tmp_path / "policy" / "policy.json"
    document.write_text(document.read_text().replace('"gpt-4o-mini"', '"small-of-ours"'))
    findings = run_doctor(ROUTER_POLICY="policy")
    assert findings["prices"].state == WARNING and "unknown for small-of-ours" in findings["prices"].message
    priced = {"small-of-ours": {"usd_per_million_input_tokens": 0.1, "usd_per_million_output_tokens": 0.2}}
    assert run_doctor(ROUTER_MODELS=json.dumps(priced))["prices"].state == OK
    del priced["small-of-ours"]["usd_per_million_output_tokens"]
    assert run_doctor(ROUTER_MODELS=json.dumps(priced))["prices"].state == PROBLEM


def test_a_read_only_home_folder_is_a_problem(tmp_path):
    assert home_writable(tmp_path).state == OK
    (tmp_path / "file").touch()
    for home in (tmp_path / "file", tmp_path / "file" / "home"):
        findings = home_writable(home)
        assert findings.state == PROBLEM and "Not a directory" in findings.message and "ROUTER_HOME" in findings.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_little_free_disk_space_is_a_warning(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    assert disk_free(tmp_path / "not" / "yet", least_bytes=free // 2).state == OK
    assert disk_free(tmp_path / "not" / "yet", least_bytes=2 * free).state == WARNING


def test_a_database_file_is_opened_and_not_changed(tmp_path):
    for name, content, state in (("broken.db", b"no database" * 100, PROBLEM), ("empty.db", b"", OK)):
        (tmp_path / name).write_bytes(content)
        findings = database("usage database", f"sqlite:///{tmp_path / name}", "ROUTER_USAGE_DATABASE")
        assert findings.state == state and (tmp_path / name).read_bytes() == content
    with sqlite3.connect(tmp_path / "wal.db") as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE held (x)")
        connection.commit()
        assert mlflow_store(f"sqlite:///{tmp_path / 'wal.db'}").state == OK  # while another process writes
    connection.close()


def test_an_unreachable_database_is_a_problem_without_its_password(closed_port):
    url = f"postgresql+psycopg://ada:secret@127.0.0.1:{closed_port}/router?sslpassword=hidden"
    findings = database("usage database", url, "ROUTER_USAGE_DATABASE")
    assert findings.state == PROBLEM and f"[login]@127.0.0.1:{closed_port}/router" in findings.message
    assert "secret" not in str(findings) and "hidden" not in str(findings)


@pytest.mark.parametrize("url", ["mongo://ada:secret@localhost/x", "databricks", "mlruns"])
def test_an_unknown_kind_of_store_is_a_problem(url):
    findings = mlflow_store(url)
    assert findings.state == PROBLEM and "secret" not in str(findings)


def test_the_health_of_an_mlflow_server_is_checked(openai_server, closed_port):
    origin = f"http://127.0.0.1:{openai_server.port}"
    with_login = origin.replace("//", "//ada:se%2Fcret@")
    assert mlflow_store(origin + "/mlflow/").state == mlflow_store(with_login).state == OK
    assert [request.target for request in openai_server.received] == ["/mlflow/health", "/health"]
    assert openai_server.received[1].header("authorization") == "Basic YWRhOnNlL2NyZXQ="
    for status, state in ((401, WARNING), (403, WARNING), (404, PROBLEM), (500, PROBLEM)):
        openai_server.enqueue(Reply(status))
        assert mlflow_store(origin).state == state
    for url in (f"http://ada:secret@127.0.0.1:{closed_port}", "http://ada:secret@:99999"):
        findings = mlflow_store(url)
        assert findings.state == PROBLEM and "MLFLOW_TRACKING_URI" in findings.remedy and "secret" not in str(findings)


@pytest.fixture
def proxy_environment(keyed, tmp_path):
    """A proxy that requires credentials, in front of the upstream and MLflow's server."""
    (tmp_path / "made").mkdir()
    chain, authority = certificate(tmp_path / "made", x509.DNSName("upstream.test"))
    front = TlsFront(chain, keyed.port)
    proxy = CorporateProxy({"upstream.test:443": front.port, "mlflow.test": keyed.port}, "ada:geheim-123")
    yield proxy, {"OPENAI_BASE_URL": "https://upstream.test/v1", "ROUTER_CA_BUNDLE": str(authority)}
    proxy.close()
    front.close()


def test_the_finding_on_the_upstream_names_the_proxy_without_its_password(run_doctor, proxy_environment):
    proxy, environment = proxy_environment
    environment |= {"OPENAI_API_KEY": KEY, "HTTPS_PROXY": f"http://ada:geheim-123@{proxy.address}"}
    findings = run_doctor(
        **environment, HTTP_PROXY=environment["HTTPS_PROXY"], MLFLOW_TRACKING_URI="http://mlflow.test"
    )
    assert findings["upstream"].state == findings["key"].state == OK
    assert findings["upstream"].message == f"https://upstream.test/v1 (through the proxy {proxy.address}) is reachable"
    assert f"(through the proxy {proxy.address})" in findings["MLflow store"].message
    assert "geheim" not in str(list(map(str, findings.values()))) and "YWRh" not in str(
        list(map(str, findings.values()))
    )


@pytest.mark.parametrize(
    ("login", "fault", "expected", "remedy"),
    [
        (
            "",
            None,
            "asks for credentials, and none are set (407)",
            "ROUTER_PROXY or HTTPS_PROXY: http://user:password@",
        ),
        ("ada:falsch-9@", None, "refuses its credentials (407)", "ROUTER_PROXY or HTTPS_PROXY: http://user:password@"),
        ("ada:geheim-123@", "403", "does not allow upstream.test:443 (403)", "to allow upstream.test:443, or add"),
        ("ada:geheim-123@", "502", "cannot reach upstream.test:443 (502)", "the proxy can resolve and reach it"),
        ("ada:geheim-123@", "cut", "closed the connection after CONNECT", "ROUTER_PROXY=none disables the proxy"),
    ],
)
def test_the_finding_on_a_failed_connect_explains_the_status(
    run_doctor, proxy_environment, login, fault, expected, remedy
):
    proxy, environment = proxy_environment
    proxy.fault = fault
    findings = run_doctor(**environment, OPENAI_API_KEY=KEY, ROUTER_PROXY=f"http://{login}{proxy.address}")["upstream"]
    assert (
        findings.state == PROBLEM
        and f"the proxy {proxy.address} {expected}" in findings.message
        and remedy in findings.remedy
    )
    assert "geheim" not in str(findings) and "falsch" not in str(findings)


def test_an_unreachable_or_silent_proxy_is_named(run_doctor, proxy_environment):
    proxy, environment = proxy_environment
    findings = run_doctor(**environment, OPENAI_API_KEY=KEY, ROUTER_PROXY="http://ada:geheim-123@127.0.0.1:9")[
        "upstream"
    ]
    assert "the proxy 127.0.0.1:9 cannot be reached" in findings.message and "geheim" not in str(findings)
    proxy.fault = "stall"
    findings = run_doctor(ROUTER_PROXY=f"http://ada:geheim-123@{proxy.address}")["upstream"]
    assert f"no connection within 4 s (through the proxy {proxy.address})" in findings.message


def test_a_missing_bundle_is_a_problem_of_the_settings(run_doctor):
    findings = run_doctor(OPENAI_BASE_URL="https://api.example.com/v1", ROUTER_CA_BUNDLE="/nowhere.pem")
    assert findings["settings"].state == PROBLEM and "/nowhere.pem: No such file" in findings["settings"].message


def test_client_keys_are_counted_and_a_damaged_file_is_a_problem(tmp_path):
    settings = load(home=tmp_path)
    assert (client_keys(settings).state, client_keys(settings).message) == (
        OK,
        "none, so only this machine may send requests",
    )
    keys, key = add((), "ada", time.time())
    keys, _ = add(keys, "bob", time.time())
    write_roster(tmp_path / "keys.json", Roster(revoke(keys, "bob", time.time())))
    assert client_keys(settings).message == "1 of 2 named keys are active, 0 in the settings"
    (tmp_path / "keys.json").write_text(f'{{"format":1,"keys":"{key}"}}')
    findings = client_keys(settings)
    assert findings.state == PROBLEM and "keys.json" in findings.message and key not in str(findings)


def test_a_missing_folder_of_the_keys_is_a_problem(tmp_path):
    findings = client_keys(load(home=tmp_path, keys_file=tmp_path / "volume" / "keys.json"))
    assert findings.state == PROBLEM and findings.message.endswith(str(tmp_path / "volume"))
    result = run("router", "keys", "add", "ada", ROUTER_KEYS_FILE=str(tmp_path / "volume" / "keys.json"))
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "volume does not exist; create it" in result.stderr

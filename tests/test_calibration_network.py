"""A calibration behind a corporate proxy: models and the judge use the proxy, MLflow's relay does not."""

import asyncio
import os

import httpx2
import pytest
import requests
from corporate_proxy import CorporateProxy
from cryptography import x509
from fake_models import FakeModels
from test_upstream_tls import TlsFront, certificate

from calibration import network
from calibration.__main__ import main
from calibration.answers import batch
from calibration.answers.answers import AnswerCollector, Endpoint
from calibration.answers.request_adapter import RequestAdapter
from calibration.judging.relay import JudgeRelay
from calibration.ledger import Ledger
from calibration.policies import load_catalogue, load_prices
from calibration.questions.questions import parse
from calibration.retirement.probes import Shape, probe
from calibration.retirement.shutdown_dates import find_shutdowns
from calibration.spending import Meter, StoppedError
from router.policy.network import BundleError
from router.policy.proxies import ProxyAddressError

QUESTIONS = [
    parse({"id": f"q{n}", "question_type": "t", "question": f"What is {n}?", "expected_facts": ["a number"]})
    for n in range(3)
]
LOGIN = "ada:geheim-123"


@pytest.fixture(autouse=True)
def _environment():
    """Restore the environment, which a calibration changes for MLflow."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(params=["https", "http"])
def proxied_endpoint(request, tmp_path, monkeypatch):
    """Models that only the proxy reaches; yields the proxy and their endpoint."""
    chain, authority = certificate(tmp_path, x509.DNSName("models.test"))
    with FakeModels(QUESTIONS) as models:
        port = int(models.base_url.rpartition(":")[2].partition("/")[0])
        front = TlsFront(chain, port)
        proxy = CorporateProxy({"models.test:443": front.port, "models.test": port}, LOGIN)
        monkeypatch.setenv("ROUTER_CA_BUNDLE", str(authority))
        monkeypatch.setenv("ROUTER_PROXY", f"http://{LOGIN}@{proxy.address}")
        yield proxy, Endpoint(f"{request.param}://models.test/v1", "sk-test")
        proxy.close()
        front.close()


def collect_answers(endpoint, folder, **options):
    with Ledger(folder / "answers.jsonl") as ledger:
        asking = AnswerCollector({"gpt-4o": endpoint}, Meter(load_prices()), ledger, **options)
        return asyncio.run(asking.collect(QUESTIONS))


def requested_hosts(proxy):
    return {request.target.split("/v1")[0] for request in proxy.connects + proxy.forwarded}


def test_models_are_called_through_the_proxy(proxied_endpoint, tmp_path):
    proxy, endpoint = proxied_endpoint
    assert len(collect_answers(endpoint, tmp_path).answers) == 3
    assert requested_hosts(proxy) <= {"models.test:443", "http://models.test"} and requested_hosts(proxy)


def test_a_batch_goes_through_the_proxy(proxied_endpoint, tmp_path):
    proxy, endpoint = proxied_endpoint
    with Ledger(tmp_path / "answers.jsonl") as ledger:
        meter = Meter(load_prices())
        done = batch.collect_batch(QUESTIONS, {"gpt-4o": endpoint}, meter, ledger, tmp_path, poll_seconds=0.05)
    assert len(done.answers) == 3 and requested_hosts(proxy)


@pytest.mark.parametrize("prepared", [True, False])
def test_the_judge_uses_the_proxy_and_the_relay_is_reached_directly(proxied_endpoint, tmp_path, monkeypatch, prepared):
    proxy, endpoint = proxied_endpoint
    if prepared:
        network.prepare_environment()
        assert os.environ["http_proxy"] == os.environ["HTTPS_PROXY"] == f"http://{LOGIN}@{proxy.address}"
    else:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # which would fail
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "What is 1?"}]}
    with (
        Ledger(tmp_path / "calls.jsonl") as calls,
        JudgeRelay(endpoint, Meter(load_prices()), calls) as relay,
        relay.in_environment(),
    ):
        for post in (requests.post, httpx2.post):
            assert post(os.environ["OPENAI_API_BASE"] + "/chat/completions", json=body, timeout=30).status_code == 200
    assert requested_hosts(proxy) <= {"models.test:443", "http://models.test"} and requested_hosts(proxy)


@pytest.mark.parametrize(("exempt", "expected"), [("*", "*"), ("mlflow.corp", "mlflow.corp,127.0.0.1")])
def test_the_relay_keeps_the_exempt_hosts(tmp_path, monkeypatch, exempt, expected):
    monkeypatch.setenv("NO_PROXY", exempt)
    with (
        Ledger(tmp_path / "calls.jsonl") as calls,
        JudgeRelay(Endpoint("http://127.0.0.1:9", "k"), Meter(load_prices()), calls) as relay,
    ):
        with relay.in_environment():
            assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == expected
        assert os.environ["NO_PROXY"] == exempt and "no_proxy" not in os.environ


def test_the_error_of_a_proxy_names_no_password(proxied_endpoint, tmp_path, monkeypatch):
    proxy, endpoint = proxied_endpoint
    monkeypatch.setenv("ROUTER_PROXY", f"http://ada:falsch-9@{proxy.address}")
    with pytest.raises(StoppedError) as error:
        collect_answers(endpoint, tmp_path, patience_seconds=0.5)
    assert "407" in str(error.value) and "falsch" not in str(error.value)


def test_the_setting_none_disables_the_proxy(proxied_endpoint, tmp_path, monkeypatch):
    proxy, endpoint = proxied_endpoint
    monkeypatch.setenv("HTTPS_PROXY", os.environ["ROUTER_PROXY"])
    monkeypatch.setenv("HTTP_PROXY", os.environ["ROUTER_PROXY"])
    monkeypatch.setenv("ROUTER_PROXY", "none")
    with pytest.raises(StoppedError, match="no answer"):
        collect_answers(endpoint, tmp_path, patience_seconds=0.2)
    assert not requested_hosts(proxy)


@pytest.mark.parametrize(
    ("variable", "value", "error"),
    [("ROUTER_CA_BUNDLE", "/nowhere.pem", BundleError), ("ROUTER_PROXY", "ftp://x:geheim@y", ProxyAddressError)],
)
def test_invalid_settings_are_a_one_line_error_before_any_call(tmp_path, monkeypatch, capsys, variable, value, error):
    monkeypatch.setenv(variable, value)
    with pytest.raises(error, match=variable):
        network.prepare_environment()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["calibration", "rollback"])
    with pytest.raises(SystemExit) as raised:
        main()
    stderr = capsys.readouterr().err
    assert raised.value.code == 2 and stderr.startswith(f"error: {variable}") and stderr.count("\n") == 1
    assert "geheim" not in stderr


def test_probes_and_the_model_list_use_the_proxy(proxied_endpoint, tmp_path):
    proxy, endpoint = proxied_endpoint
    shapes = [Shape("plain", {"messages": [{"role": "user", "content": "What is 1?"}]})]
    with Ledger(tmp_path / "probes.jsonl") as ledger:
        probed = probe(shapes, {"gpt-4o": endpoint}, RequestAdapter(load_catalogue()), Meter(load_prices()), ledger)
    assert [request.answered for request in probed] == [True] and requested_hosts(proxy)
    before = len(proxy.connects + proxy.forwarded)
    assert [shutdown.model for shutdown in find_shutdowns({"gpt-4o": endpoint})] == ["gpt-4o"]
    assert len(proxy.connects + proxy.forwarded) > before

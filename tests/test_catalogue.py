"""The model table agrees with the price table, shutdown dates and recorded refusals."""

import copy
import json
from datetime import date

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from refusals import MODELS as REFUSING
from refusals import ROWS, refusal
from test_refusals_read import KINDS, NOT_MENDED, body_of

from router.policy.catalogue import NO_FACTS, Catalogue, CatalogueError
from router.policy.distribution import MODELS, PRICES
from router.policy.models import model_named
from router.policy.naming import EFFORTS, without_effort
from router.policy.parameters import CHAT, ENDPOINTS, RESPONSES, apply_changes, compute_adaptation
from router.policy.prices import PriceBook
from router.policy.refusals import RefusalKind
from router.wire import bodies

TABLE = json.loads(MODELS.read_bytes())
BOOK = PriceBook.parse(json.loads(PRICES.read_bytes()))
CATALOGUE = Catalogue.parse(TABLE, BOOK.aliases)
WITHOUT_PRICE = {
    "o1-mini",
    "deepseek-chat",
    "deepseek-v4-pro",
}  # known models without a shipped price
FIELDS = {
    CHAT: set(CompletionCreateParamsNonStreaming.__annotations__),
    RESPONSES: set(ResponseCreateParamsNonStreaming.__annotations__),
}


@pytest.mark.parametrize("name", sorted(TABLE["models"]))
def test_every_model_has_a_price_a_shutdown_date_and_a_later_successor(name):
    row, known = TABLE["models"][name], CATALOGUE.facts(name)
    assert (BOOK.price(name) is None) == (name in WITHOUT_PRICE)
    assert (known.shutdown_date is None) == (known.successor == "")
    if known.shutdown_date is None:
        return
    assert str(known.shutdown_date) == row["leaves"] and known.source
    assert known.shutdown_date.year in (2025, 2026, 2027)
    successor = without_effort(known.successor)
    assert successor in TABLE["models"] and BOOK.price(known.successor) is not None
    follows = CATALOGUE.facts(known.successor)
    assert follows.shutdown_date is None or follows.shutdown_date > known.shutdown_date
    assert model_named(known.successor, BOOK, CATALOGUE) is not None
    effort = known.successor.partition(":")[2]
    assert not effort or all(effort in follows.support.efforts[endpoint] for endpoint in ENDPOINTS)


@pytest.mark.parametrize("name", sorted(TABLE["models"]))
def test_reasoning_efforts_are_ascending(name):
    support = CATALOGUE.facts(name).support
    for efforts in (support.efforts or {}).values():
        assert list(efforts) == [effort for effort in EFFORTS if effort in efforts]
        assert efforts and support.default_effort in efforts


def test_shutdown_dates_match_those_of_the_refusing_openai():
    dates = {name: row.get("leaves") for name, row in TABLE["models"].items() if name in REFUSING}
    assert dates == {name: REFUSING[name]["shutdown_date"] for name in dates}


def test_snapshots_and_efforts_have_the_facts_of_their_model():
    for snapshot, name in BOOK.aliases.items():
        if name in TABLE["models"] and snapshot not in TABLE["models"]:
            assert CATALOGUE.facts(snapshot) is CATALOGUE.facts(name)
    assert CATALOGUE.facts("gpt-6-luna:none") is CATALOGUE.facts("gpt-6-luna")
    assert CATALOGUE.facts("gpt-6-luna-mini") is NO_FACTS
    assert CATALOGUE.facts("") is CATALOGUE.facts(":none") is NO_FACTS


def rules():
    for family, rows in TABLE["families"].items():
        for row in rows:
            yield family, row
    for name, model in TABLE["models"].items():
        for row in model.get("parameters", ()):
            if not isinstance(row, str):
                yield name, row


@pytest.mark.parametrize(("where", "rule"), [*rules()], ids=str)
def test_rules_name_parameters_of_the_api_reference(where, rule):
    endpoints = [rule["on"]] if "on" in rule else ENDPOINTS
    assert any(rule["name"] in FIELDS[endpoint] for endpoint in endpoints)
    assert rule.get("called", rule["name"]) in set().union(*(FIELDS[endpoint] for endpoint in endpoints))
    assert rule["source"], where


def test_the_default_judge_is_not_about_to_shut_down():
    assert CATALOGUE.default_judge(date(2026, 11, 28)) == "gpt-4.1-mini"
    assert CATALOGUE.default_judge(date(2026, 11, 28), days=60) == "gpt-6-luna:none"
    assert CATALOGUE.default_judge(date(2027, 1, 14)) == "gpt-6-luna:none"
    assert CATALOGUE.default_judge(date(2099, 1, 1)) == "gpt-6-luna:none"


@pytest.mark.parametrize(
    "change",
    [
        {"leaves": "soon"},
        {"leaves": 20270114},
        {"leaves": "2027-02-30"},
        {"parameters": ["no such family"]},
        {"parameters": [{"name": "stop", "unknown": True}]},
        {"parameters": [5]},
        {"parameters": [{"name": "messages", "roles": {"assistant": "user"}}]},
        {"parameters": [{"name": "messages", "roles": {"developer": "assistant"}}]},
        {"parameters": [{"name": "messages", "roles": {"developer": ["user"]}}]},
        {"parameters": [{"name": "messages", "roles": "developer"}]},
        {"parameters": 5},
        {"max_output_tokens": "many"},
        {"efforts": 5},
        {"image_tokens": 5},
    ],
    ids=str,
)
def test_errors_name_the_model(change):
    table = copy.deepcopy(TABLE)
    table["models"]["gpt-4o"] |= change
    with pytest.raises(CatalogueError, match="gpt-4o"):
        Catalogue.parse(table, {})


@pytest.mark.parametrize("table", [[], {}, {"models": []}, {"models": {"a": 5}}, {"models": {"a": None}}], ids=str)
def test_a_value_other_than_a_table_is_refused(table):
    with pytest.raises(CatalogueError):
        Catalogue.parse(table, {})


ROWS_MENDED = sorted(
    name
    for name in ROWS
    if name not in NOT_MENDED and KINDS.get(name) not in (RefusalKind.MODEL_NOT_FOUND, RefusalKind.CONTEXT)
)


@pytest.mark.parametrize("model", sorted(set(TABLE["models"]) & set(REFUSING)))
@pytest.mark.parametrize("row", ROWS_MENDED)
def test_known_refusals_are_avoided(row, model):
    """Each request that a model would refuse is adapted before it is sent."""
    endpoint, body = body_of(row)
    body["model"] = model
    fields = bodies.read_fields(json.dumps(body).encode())
    adaptation = compute_adaptation(CATALOGUE.facts(model).support, fields, endpoint)
    refused = refusal(endpoint, apply_changes(body, adaptation.changes))
    assert refused is None or "tools with reasoning" in adaptation.unavailable, refused.body["error"]["message"]

import json
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.prices import LongContext, Price, PriceBook, PriceError, day_unix_ns
from router.policy.usage import Usage

SHIPPED = Path(__file__).parent.parent / "data" / "prices.json"
tokens = st.integers(0, 10**7)
A_PRICE = {"usd_per_million_input_tokens": 1.0, "usd_per_million_output_tokens": 2.0}


def test_shipped_prices_match_the_documentation():
    book = PriceBook.parse(json.loads(SHIPPED.read_bytes()))
    a_million = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
    assert book.cost_usd("gpt-4o-mini", a_million) == pytest.approx(0.15 + 0.60)
    assert book.cost_usd("gpt-4o", a_million) == pytest.approx(2.50 + 10.00)


def test_dated_snapshots_have_the_price_of_their_listed_alias_only():
    book = PriceBook.parse(json.loads(SHIPPED.read_bytes()))
    assert book.price("gpt-4o-mini-2024-07-18") == book.price("gpt-4o-mini")
    assert book.price("gpt-4o-mini-2031-01-01") is None
    assert book.cost_usd("gpt-4o-2024-05-13", Usage(input_tokens=1_000_000)) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("model", "usd", "batch_usd"),
    [
        ("text-embedding-3-small", 0.02, 0.01),
        ("text-embedding-3-large", 0.13, 0.065),
        ("text-embedding-ada-002-v2", 0.10, 0.05),  # the name in answers of text-embedding-ada-002
    ],
)
def test_embeddings_have_sourced_prices_and_free_output(model, usd, batch_usd):
    book = PriceBook.parse(json.loads(SHIPPED.read_bytes()))
    a_million = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
    assert book.cost_usd(model, a_million) == pytest.approx(usd)
    assert book.cost_usd(model, a_million, "batch") == pytest.approx(batch_usd)
    assert book.history(model)[0].source and book.as_of == "2026-11-28"


@given(tokens, tokens, st.integers(0, 10**6))
def test_cost_does_not_depend_on_the_grouping_of_tokens(first, second, written):
    price = Price(0.15, 0.60, usd_per_million_cached_input_tokens=0.075)
    first_usage = Usage(input_tokens=first, output_tokens=written, cached_input_tokens=first // 2)
    second_usage = Usage(input_tokens=second, output_tokens=written // 3)
    assert price.cost_usd(first_usage + second_usage) == pytest.approx(
        price.cost_usd(first_usage) + price.cost_usd(second_usage), rel=1e-9, abs=1e-12
    )


def test_usage_of_chat_completions_and_of_responses_is_read():
    chat = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}}
    responses = {"input_tokens": 9, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 3}}
    assert Usage.from_openai(chat) == Usage.from_openai(responses) == Usage(9, 4, cached_input_tokens=3)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "models"),
        ({"models": {"m": {"usd_per_million_input_tokens": 1.0}}}, "output_tokens is missing"),
        ({"models": {"m": {**A_PRICE, "since": "last week"}}}, "since is not a day"),
        ({"models": {"m": {**A_PRICE, "earlier": [A_PRICE]}}}, "two prices from the same day"),
        ({"models": {"m": {**A_PRICE, "long_context": {"above_input_tokens": "many"}}}}, "not a number of tokens"),
        ({"models": {"m": {"usd_per_million_input_tokens": -1, "usd_per_million_output_tokens": 1}}}, "not a price"),
    ],
)
def test_an_invalid_table_names_the_model_and_the_error(table, message):
    with pytest.raises(PriceError, match=message):
        PriceBook.parse(table)


def test_cached_written_and_reasoning_tokens_have_their_own_prices():
    price = Price(2.0, 10.0, 0.2, usd_per_million_cache_write_tokens=2.5, usd_per_million_reasoning_tokens=12.0)
    usage = Usage(1_000_000, 200_000, cached_input_tokens=500_000, cache_write_tokens=300_000, reasoning_tokens=100_000)
    assert price.cost_usd(usage) == pytest.approx(0.2 * 2.0 + 0.5 * 0.2 + 0.3 * 2.5 + 0.1 * 10.0 + 0.1 * 12.0)


def test_a_request_above_the_long_context_limit_costs_more_for_all_tokens():
    price = PriceBook.parse(json.loads(SHIPPED.read_bytes())).price("gpt-6-sol", unix_ns=day_unix_ns(date(2026, 10, 1)))
    at_limit, above_limit = (
        Usage(272_000, 1000, cached_input_tokens=72_000),
        Usage(272_001, 1000, cached_input_tokens=72_000),
    )
    assert price.cost_usd(at_limit) == pytest.approx((200_000 * 2.0 + 72_000 * 0.2 + 1000 * 10.0) / 1e6)
    assert price.cost_usd(above_limit) == pytest.approx((200_001 * 4.0 + 72_000 * 0.4 + 1000 * 15.0) / 1e6)


def test_tiers_have_the_long_context_surcharge_of_their_model():
    book = PriceBook.parse(json.loads(SHIPPED.read_bytes()))
    usage = Usage(300_000, 1000, cache_write_tokens=300_000)
    day = day_unix_ns(date(2026, 10, 1))
    standard = book.cost_usd("gpt-6-luna", usage, unix_ns=day)
    assert standard == pytest.approx((300_000 * 0.125 * 2 + 1000 * 0.5 * 1.5) / 1e6)
    assert book.cost_usd("gpt-6-luna", usage, "flex", day) == pytest.approx(standard / 2)
    assert book.cost_usd("gpt-6-luna", usage, "batch", day) == pytest.approx(standard / 2)
    assert book.cost_usd("gpt-6-luna", usage, "priority", day) == pytest.approx(standard * 2)


def test_a_request_has_the_price_of_its_day():
    book = PriceBook.parse(json.loads(SHIPPED.read_bytes()))
    a_million = Usage(input_tokens=1_000_000)
    last, first = day_unix_ns(date(2026, 7, 30)) - 1, day_unix_ns(date(2026, 7, 30))
    assert book.cost_usd("gpt-5.6-luna", a_million, unix_ns=last) == pytest.approx(1.00 * 2)  # long contexts cost twice
    assert book.cost_usd("gpt-5.6-luna", a_million, unix_ns=first) == pytest.approx(0.20 * 2)
    assert (
        book.cost_usd("gpt-5.6-luna", a_million, unix_ns=day_unix_ns(date(2026, 7, 8))) is None
    )  # the model did not exist


def test_a_future_price_is_valid_from_its_day_on():
    row = {"usd_per_million_input_tokens": 1.0, "usd_per_million_output_tokens": 1.0}
    change = {"since": "2030-01-01", "usd_per_million_input_tokens": 3.0, "usd_per_million_output_tokens": 3.0}
    now = day_unix_ns(date(2029, 6, 1))
    book = PriceBook.parse({"models": {"m": {**change, "earlier": [row]}}}, now)
    assert book.prices["m"].usd_per_million_input_tokens == 1.0
    assert [
        book.price("m", unix_ns=day_unix_ns(date(year, 1, 1))).usd_per_million_input_tokens for year in (2029, 2030)
    ] == [1, 3]


def test_a_reasoning_effort_has_the_price_of_its_model():
    book = PriceBook.parse(json.loads(SHIPPED.read_bytes()))
    assert book.price("gpt-6-sol:low") == book.price("gpt-6-sol") is not None
    assert book.price("gpt-6-sol:much") is None


def test_configured_prices_replace_all_shipped_prices_of_a_model():
    shipped = PriceBook.parse(json.loads(SHIPPED.read_bytes()))
    configured = PriceBook({"gpt-5.6-luna": Price(7.0, 7.0)}, {})
    extended = shipped.merged_with(configured)
    assert extended.price("gpt-5.6-luna", unix_ns=0) == Price(7.0, 7.0)
    assert extended.price("gpt-5.6-luna", "flex") is None  # its price is not published
    assert [period.price for period in extended.history("gpt-5.6-luna")] == [Price(7.0, 7.0)]


def test_the_total_of_short_requests_has_no_long_context_surcharge():
    price = Price(2.0, 10.0, long_context=LongContext(1000, 2.0, 1.5))
    assert price.total_usd(Usage(5000, 100), 10) == pytest.approx(5000 * 2.0 / 1e6 + 100 * 10.0 / 1e6)
    assert price.total_usd(Usage(20_000, 100), 10) == pytest.approx(20_000 * 4.0 / 1e6 + 100 * 15.0 / 1e6)
    assert price.total_usd(Usage(), 0) == 0.0

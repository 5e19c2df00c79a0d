import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.prices import Price, PriceBook, PriceError, Usage

SHIPPED = Path(__file__).parent.parent / "data" / "prices.json"
tokens = st.integers(0, 10**7)


def test_the_shipped_prices_are_those_of_the_document():
    book = PriceBook.parse(json.loads(SHIPPED.read_bytes()))
    a_million = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
    assert book.cost_usd("gpt-4o-mini", a_million) == pytest.approx(0.15 + 0.60)
    assert book.cost_usd("gpt-4o", a_million) == pytest.approx(2.50 + 10.00)


def test_a_dated_snapshot_is_billed_by_its_listed_alias_and_never_by_likeness():
    book = PriceBook.parse(json.loads(SHIPPED.read_bytes()))
    assert book.price("gpt-4o-mini-2024-07-18") == book.price("gpt-4o-mini")
    assert book.price("gpt-4o-mini-2031-01-01") is None
    assert book.cost_usd("gpt-4o-2024-05-13", Usage(input_tokens=1_000_000)) == pytest.approx(5.0)


@given(tokens, tokens, st.integers(0, 10**6))
def test_money_adds_up_whatever_way_the_tokens_are_grouped(first, second, written):
    price = Price(0.15, 0.60, usd_per_million_cached_input_tokens=0.075)
    one = Usage(input_tokens=first, output_tokens=written, cached_input_tokens=first // 2)
    two = Usage(input_tokens=second, output_tokens=written // 3)
    assert price.cost_usd(one + two) == pytest.approx(price.cost_usd(one) + price.cost_usd(two), rel=1e-9, abs=1e-12)


def test_usage_is_read_in_the_form_of_chat_completions_and_of_responses():
    chat = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}}
    responses = {"input_tokens": 9, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 3}}
    assert Usage.from_openai(chat) == Usage.from_openai(responses) == Usage(9, 4, cached_input_tokens=3)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ([], "models"),
        ({"models": {"m": {"usd_per_million_input_tokens": 1.0}}}, "output_tokens is missing"),
        ({"models": {"m": {"usd_per_million_input_tokens": -1, "usd_per_million_output_tokens": 1}}}, "not a price"),
    ],
)
def test_a_table_that_does_not_fit_says_which_model_and_what(table, said):
    with pytest.raises(PriceError, match=said):
        PriceBook.parse(table)

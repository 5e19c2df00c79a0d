import json

import msgspec
import pytest

from router.journal.redaction import kept, without_keys, without_personal_data

KEYS = [
    "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789",
    "sk-ant-api03-abcdefghijklmnopqrstuv",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "hf_abcdefghijklmnopqrstuvwxyz",
    "xoxb-123456789012-abcdefghijkl",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "Bearer abcdefghijklmnopqrstuvwxyz",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nAQAB\n-----END RSA PRIVATE KEY-----",
]


def body(text: str) -> msgspec.Raw:
    return msgspec.Raw(json.dumps({"model": "auto", "messages": [{"role": "user", "content": text}]}).encode())


def said(value) -> str:
    return json.loads(msgspec.json.encode(value))["messages"][0]["content"]


@pytest.mark.parametrize("mode", ["whole", "redacted"])
@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_kept_in_no_mode(mode, key):
    assert said(kept(body(f"my key is {key} ok"), mode)) == "my key is [key] ok"


def test_whole_keeps_the_very_bytes_where_there_is_no_key():
    raw = body("ada@example.org asks: 1.10 + 2^60?")
    assert kept(raw, "whole") is raw


def test_redacted_leaves_out_addresses_and_card_numbers_and_nothing_else():
    text = "write to ada.b+c@mail.example.org or pay with 4111-1111-1111-1111; 13.11 is not 1234567890123456"
    assert said(kept(body(text), "redacted")) == ("write to [e-mail] or pay with [card]; 13.11 is not 1234567890123456")


def test_an_address_that_is_escaped_in_the_json_is_found():
    raw = msgspec.Raw(b'{"messages":[{"content":"ada\\u0040example.org"}]}')
    assert said(kept(raw, "redacted")) == "[e-mail]"


def test_a_card_number_without_quotes_is_found():
    assert kept(msgspec.Raw(b'{"card":4111111111111111,"n":7}'), "redacted") == {"card": "[card]", "n": 7}


def test_lengths_keep_how_much_was_said_by_whom():
    raw = msgspec.Raw(b'{"messages":[{"role":"system","content":"be kind"},{"role":"user","content":"hello"}]}')
    assert kept(raw, "lengths") == {"characters": {"system": 7, "user": 5}}


def test_none_keeps_nothing():
    assert kept(body("hello"), "none") is None
    assert kept(None, "whole") is None


def test_what_cannot_be_read_is_not_kept_where_it_would_have_to_be_cleaned():
    assert kept(msgspec.Raw(b"{" * 10), "redacted") is None


@pytest.mark.parametrize("word", ["task-force-for-all-of-us-here", "skating", "an AKIA", "2024-01-02 10:11:12"])
def test_ordinary_words_stay(word):
    assert without_personal_data(word) == word == without_keys(word)

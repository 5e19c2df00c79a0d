import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.journal import pieces
from router.journal.pieces import PIECE, occurs, replaced
from router.journal.redaction import recorded_content, without_keys, without_personal_data

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


def content_of(value) -> str:
    return json.loads(msgspec.json.encode(value))["messages"][0]["content"]


@pytest.mark.parametrize("mode", ["whole", "redacted"])
@pytest.mark.parametrize("key", KEYS)
def test_no_mode_records_a_key(mode, key):
    assert content_of(recorded_content(body(f"my key is {key} ok"), mode)) == "my key is [key] ok"


def test_mode_whole_keeps_content_without_keys_byte_for_byte():
    raw = body("ada@example.org asks: 1.10 + 2^60?")
    assert recorded_content(raw, "whole") is raw


def test_mode_redacted_removes_only_addresses_and_card_numbers():
    text = "write to ada.b+c@mail.example.org or pay with 4111-1111-1111-1111; 13.11 is not 1234567890123456"
    assert content_of(recorded_content(body(text), "redacted")) == (
        "write to [e-mail] or pay with [card]; 13.11 is not 1234567890123456"
    )


def test_an_escaped_address_is_found():
    raw = msgspec.Raw(b'{"messages":[{"content":"ada\\u0040example.org"}]}')
    assert content_of(recorded_content(raw, "redacted")) == "[e-mail]"


def test_a_card_number_without_quotes_is_found():
    assert recorded_content(msgspec.Raw(b'{"card":4111111111111111,"n":7}'), "redacted") == {"card": "[card]", "n": 7}


def test_mode_lengths_records_the_length_of_each_message():
    raw = msgspec.Raw(b'{"messages":[{"role":"system","content":"be kind"},{"role":"user","content":"hello"}]}')
    assert recorded_content(raw, "lengths") == {"characters": {"system": 7, "user": 5}}


def test_mode_none_records_no_content():
    assert recorded_content(body("hello"), "none") is None
    assert recorded_content(None, "whole") is None


def test_unreadable_content_is_not_recorded_if_it_must_be_redacted():
    assert recorded_content(msgspec.Raw(b"{" * 10), "redacted") is None


@pytest.mark.parametrize("word", ["task-force-for-all-of-us-here", "skating", "an AKIA", "2024-01-02 10:11:12"])
def test_ordinary_words_are_not_redacted(word):
    assert without_personal_data(word) == word == without_keys(word)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("words_before", [PIECE - 60, PIECE - 20, PIECE - 1, PIECE, PIECE + 3, 3 * PIECE - 7])
def test_a_key_is_found_at_any_boundary_of_a_long_text(key, words_before):
    before = ("word " * words_before)[: words_before - 1] + " "
    text = f"{before}{key} and {key} " + "more words " * 9000
    assert without_keys(text) == text.replace(key, "[key]")
    assert content_of(recorded_content(body(text), "whole")) == text.replace(key, "[key]")
    mail = f"{before}ada.lovelace@example.org, 4111 1111 1111 1111" + " more words" * 9000
    clean = mail.replace("ada.lovelace@example.org", "[e-mail]").replace("4111 1111 1111 1111", "[card]")
    assert without_personal_data(mail) == clean


@pytest.mark.parametrize("length", [PIECE + 10, 3 * PIECE, 10 * PIECE])
def test_a_key_longer_than_a_chunk_is_removed_completely(length):
    token = "sk-" + "a1B2" * (length // 4)
    text = "x " * 20_000 + token + " and " + "y " * 40_000 + token
    assert without_keys(text) == text.replace(token, "[key]")


@given(st.data())
def test_small_chunks_give_the_same_result(data):
    part = st.sampled_from(["ab", "cd ", "a1", "-", " ", "k-aaaa", "k-aaaaaaaaaaaaaaaa"])
    text = "".join(data.draw(st.lists(part, max_size=60)))
    key = re.compile(r"(?<![a-z0-9])k-[a-z0-9-]{4,}+")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE", data.draw(st.integers(1, 20)))
        assert replaced(key, "[key]", text, 8) == key.sub("[key]", text)
        assert occurs(re.compile(key.pattern.encode()), text.encode(), 8) == bool(key.search(text))

"""API keys are redacted everywhere: in text, in JSON with escapes, and in names."""

import msgspec
import pytest

from router.journal.credentials import SHAPES
from router.journal.redaction import recorded_content, recorded_error, without_keys
from router.request.records import redact_names
from router.request.timeline import RequestTimeline
from router.wire.event_edits import remove_null_usage

TAIL = "abcdefghijklmnopqrstuvwxyz0123456789"
EXAMPLES = {
    "dapi": "0123456789abcdef0123456789abcdef",
    "SG.": f"{TAIL[:22]}.{TAIL}",
    "xox": f"b-{TAIL}",
    "AKIA": "IOSFODNN7EXAMPLE",
    "ASIA": "IOSFODNN7EXAMPLE",
    "aws_secret": "_access_key = " + "aB3/" * 10,
    "secretaccesskey": ": " + "aB3/" * 10,
    "secret_access_key": "=" + "aB3/" * 10,
    "eyJ": "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "basic ": "YWxhZGRpbjpvcGVuc2VzYW1l",
    "://": "ada:hunter2@",
    "-----BEGIN ": "PGP PRIVATE KEY BLOCK-----\nabc\n-----END PGP PRIVATE KEY BLOCK-----",
}
KEYS = [sign + EXAMPLES.get(sign, TAIL) for shape in SHAPES for sign in shape.signs]
_IN_ANY_CASE = [key for key in KEYS if key.startswith(("bearer", "basic"))]
KEYS += [key.upper() if key.startswith("bearer") else key.title() for key in _IN_ANY_CASE]


def recorded_text(body: bytes, mode: str) -> str:
    return msgspec.json.decode(msgspec.json.encode(recorded_content(msgspec.Raw(body), mode)))["content"]


@pytest.mark.parametrize("key", KEYS)
def test_every_kind_of_key_is_redacted_in_text_and_json(key):
    assert key not in without_keys(f"it is {key} ok")
    for mode in ("whole", "redacted"):
        plain_json = msgspec.json.encode({"content": f"\n{key} ok"})
        assert key not in recorded_text(plain_json, mode)
        escaped = b'{"content":" ' + "".join(f"\\u{ord(character):04x}" for character in key).encode() + b' ok"}'
        assert key not in recorded_text(escaped, mode)


@pytest.mark.parametrize("mode", ["none", "lengths"])
def test_only_type_and_code_of_an_error_that_quotes_the_prompt_are_kept(mode):
    error = '{"error":{"message":"no: ada@example.org","type":"invalid_request_error","code":"content_filter"}}'
    assert recorded_error(error, mode) == '{"type":"invalid_request_error","code":"content_filter"}'
    assert recorded_error("the prompt itself, cut", mode) == ""


def test_a_redacted_error_contains_no_email_address():
    assert recorded_error("no: ada@example.org", "redacted") == "no: [e-mail]"


def test_names_in_a_record_are_redacted_and_truncated():
    record = RequestTimeline({}).record("files/sk-" + TAIL, 200, "answered", "")
    record.asked_model, record.user, record.session = f"sk-{TAIL}", f"npm_{TAIL}", "s" * 10_000
    redact_names(record, "whole")
    assert (record.endpoint, record.asked_model, record.user) == ("files/[key]", "[key]", "[key]")
    assert len(record.session) == 256


def test_usage_with_an_escaped_name_is_removed_from_an_event():
    data = rb'{"id":"x","us\u0061ge":null}'
    event = b"data: " + data + b"\n\n"
    assert remove_null_usage(event, data) == b'data: {"id":"x"}\n\n'

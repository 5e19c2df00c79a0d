"""An upstream over TLS with a generated certificate: trusted authorities, and otherwise unchanged behaviour."""

import asyncio
import datetime as dt
import ipaddress
import ssl
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fake_openai import chat_events, stream_reply
from loopback import LoopbackServer, copy

NAMED = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'


def certificate(folder: Path, name: x509.GeneralName) -> tuple[Path, Path]:
    """A certificate for `name` with its key, signed by a new authority, and the authority's certificate."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    authority, server = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, who)]) for who in ("ours", "server"))
    now = dt.datetime.now(dt.UTC)

    def signed(subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> bytes:
        builder = x509.CertificateBuilder(authority, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        certificate = builder.add_extension(extension, critical=True).sign(keys[0], hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM)

    secret = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain, trusted = folder / "server.pem", folder / "authority.pem"
    chain.write_bytes(secret + signed(server, keys[1], x509.SubjectAlternativeName([name])))
    trusted.write_bytes(signed(authority, keys[0], x509.BasicConstraints(ca=True, path_length=None)))
    return chain, trusted


class TlsFront(LoopbackServer):
    """Terminates TLS in front of a plain server; counts the connections."""

    def __init__(self, chain: Path, port: int) -> None:
        self.connections = 0
        self._target = port
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(chain)
        super().__init__(context)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))


LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


@pytest.fixture
def start_behind_tls(tmp_path, start_router, openai_server, monkeypatch):
    """A function that starts a router in front of an OpenAI over TLS whose certificate is for `name`."""
    fronts: list[TlsFront] = []

    def start(name: x509.GeneralName = LOOPBACK, *, trusted: bool = True):
        chain, authority = certificate(tmp_path, name)
        fronts.append(TlsFront(chain, openai_server.port))
        if trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        return start_router(
            openai_base_url=f"https://127.0.0.1:{fronts[0].port}/v1", openai_api_key="sk-upstream"
        ), fronts[0]

    yield start
    for front in fronts:
        front.close()


def test_an_upstream_with_tls_answers_and_its_connection_is_reused(start_behind_tls, openai_server):
    router, front = start_behind_tls()
    for _ in range(5):
        answer = httpx2.post(router.url + "/chat/completions", content=NAMED, timeout=30)
        assert answer.json()["choices"][0]["message"]["content"] == "Paris."
    assert openai_server.received[-1].body == NAMED
    assert front.connections <= 2  # the list of models is read beside it


def test_a_stream_over_tls_is_forwarded_unchanged_as_it_arrives(start_behind_tls, openai_server):
    router, _ = start_behind_tls()
    sent_content = chat_events("gpt-4o")
    openai_server.enqueue(stream_reply(*sent_content, gap=0.05))
    body = NAMED[:-1] + b',"stream":true}'
    with httpx2.stream("POST", router.url + "/chat/completions", content=body, timeout=30) as answer:
        pieces = list(answer.iter_raw())
    assert b"".join(pieces) == b"".join(sent_content)
    assert len(pieces) >= len(sent_content) - 1


def test_large_bodies_are_forwarded_over_tls(start_behind_tls, openai_server):
    router, _ = start_behind_tls()
    large = b'{"model":"gpt-4o","messages":[{"role":"user","content":"' + b"x" * 8_000_000 + b'"}]}'
    assert httpx2.post(router.url + "/chat/completions", content=large, timeout=60).status_code == 200
    assert httpx2.post(router.url + "/files", content=large, timeout=60).status_code == 200
    assert [request.body == large for request in openai_server.received] == [True, True]


@pytest.mark.parametrize("path", ["/chat/completions", "/files"])
@pytest.mark.parametrize(
    ("name", "trusted", "expected"),
    [
        (LOOPBACK, False, "unable to get local issuer"),
        (x509.DNSName("other.test"), True, "IP address mismatch"),
    ],
    ids=["not trusted", "another's name"],
)
def test_an_invalid_certificate_returns_502(start_behind_tls, openai_server, path, name, trusted, expected):
    router, _ = start_behind_tls(name, trusted=trusted)
    answer = httpx2.post(router.url + path, content=NAMED, timeout=30)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (502, "upstream_error", "upstream_unreachable")
    assert "certificate verify failed" in error["message"]
    assert expected in error["message"]
    assert not openai_server.received

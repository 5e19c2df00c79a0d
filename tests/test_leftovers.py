"""Data that an upstream sends after its answer is discarded: no client receives it."""

import asyncio
import re
import time
from collections import deque

import httpx2
import pytest
from loopback import LoopbackServer

from router.upstream.calls import Call, CutError, Origin, StallError
from router.upstream.connection import Connection
from router.upstream.pool import Pool

EVIL = b"HTTP/1.1 418 Evil\r\nset-cookie: evil=1\r\ncontent-length: 4\r\n\r\nevil"
SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
TRAILED = CHUNKED[:-2] + b"x-trailer: evil\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nlink: evil\r\n\r\n"

ANSWERS = {"sized": SIZED, "chunked": CHUNKED, "trailed": TRAILED, "after early hints": EARLY + SIZED}
LEFTOVERS = {
    "a whole answer": EVIL,
    "half a head": EVIL[:30],
    "one byte of a head": b"H",
    "a head": EVIL[:-4],
    "two answers": EVIL * 2,
    "a 1xx": EARLY,
    "100 Continue": b"HTTP/1.1 100 Continue\r\n\r\n",
    "a 1xx and bytes": EARLY + b"evil",
    "a 204 with content": EMPTY + b"evil",
    "content": b"evil",
    "a line and content": b"\r\nevil",
    "a last chunk again": b"0\r\n\r\n",
    "a chunk": b"4\r\nevil\r\n0\r\n\r\n",
    "an upgrade": b"HTTP/1.1 101 Switching\r\nupgrade: evil\r\nconnection: upgrade\r\n\r\nevil",
    "an endless answer": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nevil\r\n",
    "an answer until the end": b"HTTP/1.0 200 OK\r\n\r\nevil",
    "NUL": b"\0",
    "a line": b"\r\n",
}


class MisbehavingUpstream(LoopbackServer):
    """Answers each request with its path, then sends extra data: at once, or on the idle connection."""

    def __init__(self, answer: bytes, leftover: bytes, wait: float) -> None:
        self.answer, self.leftover, self.wait = answer, leftover, wait
        super().__init__()

    async def serve(self, reader, writer) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            name = re.search(rb"/v1/(\S+)", head)[1]
            content = self.answer % ((len(name), name) if b"%b" in self.answer else ())
            if self.wait:
                writer.write(content)
                await asyncio.sleep(self.wait)
                content = b""
            writer.write(content + self.leftover)


def send_requests(server, start_router, pause: float = 0.0) -> None:
    url = start_router(openai_base_url=f"http://127.0.0.1:{server.port}/v1", timeouts={"first_byte": 1, "idle": 1}).url
    with httpx2.Client() as first, httpx2.Client() as second:
        for number in range(4):
            time.sleep(pause)  # also before the first: the router has read the model list
            client = (first, second)[number % 2]
            response = client.get(f"{url}/mine-{number}", timeout=5)
            assert response.status_code == (204 if server.answer == EMPTY else 200)
            assert response.text == ("" if server.answer == EMPTY else f"mine-{number}")
            assert "evil" not in str(response.headers)


@pytest.fixture
def wrong_upstream():
    servers = []

    def start(answer: bytes, leftover: bytes, wait: float = 0.0) -> MisbehavingUpstream:
        servers.append(MisbehavingUpstream(answer, leftover, wait))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


async def read_answer(pool: Pool, server: MisbehavingUpstream, path: bytes) -> tuple[int, bytes, str]:
    answer = await pool.send(Origin("127.0.0.1", server.port, False, b"/v1"), Call(b"GET", b"/" + path, []), 1)
    pieces = []
    while piece := await answer.read(1):
        pieces.append(piece)
    answer.close()
    return answer.status, b"".join(pieces), str(answer.headers)


@pytest.mark.parametrize("leftover", LEFTOVERS.values(), ids=LEFTOVERS)
async def test_data_after_an_answer_is_discarded(wrong_upstream, leftover):
    for answer in ANSWERS.values():
        server, pool = wrong_upstream(answer, leftover), Pool(1.0)
        for number in range(4):
            status, name, headers = await read_answer(pool, server, b"mine-%d" % number)
            assert (status, name) == (200, b"mine-%d" % number)
            assert "evil" not in headers
        pool.close()


@pytest.mark.parametrize("leftover", ["a whole answer", "half a head", "a 1xx and bytes"])
def test_data_after_an_answer_reaches_no_client(start_router, wrong_upstream, leftover):
    send_requests(wrong_upstream(CHUNKED, LEFTOVERS[leftover]), start_router)


def test_a_204_with_a_body_reaches_no_client(start_router, wrong_upstream):
    send_requests(wrong_upstream(EMPTY, b"evil"), start_router)


def test_data_on_an_idle_connection_reaches_no_client(start_router, wrong_upstream):
    send_requests(wrong_upstream(SIZED, EVIL, wait=0.01), start_router, pause=0.05)


async def test_unread_data_on_an_idle_connection_closes_it(wrong_upstream):
    server = wrong_upstream(SIZED, EVIL, wait=0.02)
    pool = deque()
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(lambda: Connection(pool), "127.0.0.1", server.port)
    origin = Origin("127.0.0.1", server.port, False, b"/v1")
    await link.exchange(origin, Call(b"GET", b"/mine", []), 1)
    assert await link.read(1) == b"mine"
    link.close()
    assert link.usable
    time.sleep(0.05)  # noqa: ASYNC251  the loop stands still, and what comes meanwhile is not read
    assert not link.usable
    link.abort()


@pytest.mark.parametrize(
    "drip", [b"HTTP/1.1 100 Continue\r\n\r\n", b"x"], ids=["informational answers without end", "a header without end"]
)
async def test_slow_headers_of_an_upstream_time_out(drip):
    class Dripping(LoopbackServer):
        async def serve(self, reader, writer) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nx-long: " if drip == b"x" else b"")
            while not writer.is_closing():
                writer.write(drip)
                await asyncio.sleep(0.02)

    server = Dripping()
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(lambda: Connection(deque()), "127.0.0.1", server.port)
    origin = Origin("127.0.0.1", server.port, False, b"/v1")
    with pytest.raises(StallError):
        async with asyncio.timeout(2):
            await link.exchange(origin, Call(b"GET", b"/mine", []), 0.2)
    server.close()


@pytest.mark.parametrize("endless", [b"x-trailer: y\r\n" * 1000, b"5;" + b"x" * 10_000], ids=["trailers", "extension"])
async def test_endless_data_after_the_content_is_cut_off(endless):
    class Endless(LoopbackServer):
        async def serve(self, reader, writer) -> None:
            writer.write(CHUNKED[:-7] % (4, b"mine") + (b"0\r\n" if endless.startswith(b"x-") else b""))
            while not writer.is_closing():
                writer.write(endless.removeprefix(b"5;") if writer.transport.get_write_buffer_size() else endless)
                await writer.drain()

    server = Endless()
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(lambda: Connection(deque()), "127.0.0.1", server.port)
    origin = Origin("127.0.0.1", server.port, False, b"/v1")
    await link.exchange(origin, Call(b"GET", b"/mine", []), 1)
    with pytest.raises(CutError):
        async with asyncio.timeout(2):
            while await link.read(1):
                pass
    assert link.headers == [(b"transfer-encoding", b"chunked")]
    server.close()

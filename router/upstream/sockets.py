"""TCP connections to a host with several addresses: IPv6 and IPv4 alternate, with overlapping attempts (RFC 8305)."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any

NEXT_ADDRESS_SECONDS = 0.25  # after which the next address is tried in parallel

Address = tuple[socket.AddressFamily, Any]  # the family, and the argument of `socket.connect`


async def connect(host: str, port: int) -> socket.socket:
    """A socket that is connected to the first address of `host` that responds.

    Raises:
        OSError: the host has no address, or none of its addresses responds.
        UnicodeError: `host` is not a valid host name.
    """
    resolved = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return await connect_first(alternate_families([(family, address) for family, _, _, _, address in resolved]))


def alternate_families(addresses: Sequence[Address]) -> list[Address]:
    """The addresses with alternating families, starting with the family of the first one."""
    preferred = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    return [address for address in chain.from_iterable(zip_longest(preferred, others)) if address is not None]


async def connect_first(addresses: Sequence[Address]) -> socket.socket:
    """A socket that is connected to the first of `addresses` that responds.

    Raises:
        OSError: no address responds.
    """
    if len(addresses) == 1:
        return await _dial(*addresses[0])
    untried, running, failures = deque(addresses), set[asyncio.Task[socket.socket]](), list[BaseException]()
    try:
        while untried or running:
            if untried:
                running.add(asyncio.create_task(_dial(*untried.popleft())))
            timeout = NEXT_ADDRESS_SECONDS if untried else None
            done, _ = await asyncio.wait(running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                running.remove(task)
                if (failure := task.exception()) is None:
                    return task.result()
                failures.append(failure)
    finally:
        await _cancel_all(running)
    raise OSError("; ".join(dict.fromkeys(map(str, failures))))


async def _cancel_all(running: Iterable[asyncio.Task[socket.socket]]) -> None:
    for task in running:
        task.cancel()
    for result in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(result, socket.socket):
            result.close()


async def _dial(family: socket.AddressFamily, address: Any) -> socket.socket:
    dialled = socket.socket(family, socket.SOCK_STREAM)
    try:
        dialled.setblocking(False)
        dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(dialled, address)
    except BaseException:
        dialled.close()
        raise
    return dialled

"""A TCP connection to a name with several addresses: IPv6 and IPv4 in turn, the next one soon (RFC 8305)."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any

NEXT_AFTER_SECONDS = 0.25  # without an answer of one address before the next is tried beside it

Address = tuple[socket.AddressFamily, Any]  # the family, and what `socket.connect` takes


async def connected(host: str, port: int) -> socket.socket:
    """A socket that is connected to `host`, by whichever of its addresses answers first.

    Raises:
        OSError: the name has no address, or none of them answers.
        UnicodeError: the name can be no host's.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return await first_connected(in_turn([(family, address) for family, _, _, _, address in found]))


def in_turn(addresses: Sequence[Address]) -> list[Address]:
    """The addresses with both families in turn, that of the first one first."""
    preferred = [each for each in addresses if each[0] == addresses[0][0]]
    others = [each for each in addresses if each[0] != addresses[0][0]]
    return [each for each in chain.from_iterable(zip_longest(preferred, others)) if each is not None]


async def first_connected(addresses: Sequence[Address]) -> socket.socket:
    """A socket that is connected to one of `addresses`; one that refuses or is silent does not keep the next waiting.

    Raises:
        OSError: none of them answers.
    """
    if len(addresses) == 1:
        return await _dial(*addresses[0])
    left, running, failures = deque(addresses), set[asyncio.Task[socket.socket]](), list[BaseException]()
    try:
        while left or running:
            if left:
                running.add(asyncio.create_task(_dial(*left.popleft())))
            patience = NEXT_AFTER_SECONDS if left else None
            done, _ = await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                running.remove(task)
                if (failure := task.exception()) is None:
                    return task.result()
                failures.append(failure)
    finally:
        await _abandon(running)
    raise OSError("; ".join(dict.fromkeys(map(str, failures))))


async def _abandon(running: Iterable[asyncio.Task[socket.socket]]) -> None:
    for task in running:
        task.cancel()
    for late in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(late, socket.socket):
            late.close()


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

"""Background work during the lifetime of the application, and the signals that end it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from multiprocessing.connection import wait
from types import FrameType
from typing import Any

log = logging.getLogger("router")
END_SECONDS = 5.0  # after the grace period, until a process that has not ended is killed


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` while the context is open. When the context closes, `work` is cancelled and awaited."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def repeating(action: Callable[[], Awaitable[None] | None], every_seconds: float) -> AsyncIterator[None]:
    """Call `action` while the context is open: at once, and `every_seconds` after each call. Errors are logged."""
    async with running(_repeat(action, every_seconds)):
        yield


async def _repeat(action: Callable[[], Awaitable[None] | None], every_seconds: float) -> None:
    while True:
        try:
            result = action()
            if result is not None:
                await result
        except Exception:  # the next call may succeed
            log.exception("%s failed; it is called again in %g s", action.__qualname__, every_seconds)
        await asyncio.sleep(every_seconds)


@contextlib.contextmanager
def told_to_end(seconds: float, tell: Callable[[], None]) -> Iterator[None]:
    """While the context is open, SIGTERM calls `tell` at once, and what it called before `seconds` later.

    A second SIGTERM waits for nothing. To be entered in the event loop.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield  # no server of ours: whoever runs this has signals of its own
        return
    loop, told = asyncio.get_running_loop(), False

    def received(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if told or not seconds:
            before(number, frame)
            return
        told = True
        tell()
        loop.call_soon_threadsafe(loop.call_later, seconds, before, number, None)

    signal.signal(signal.SIGTERM, received)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def on_hangup(call: Callable[[], None]) -> Iterator[None]:
    """While the context is open, SIGHUP calls `call` in the event loop, and does not end the process.

    It keeps its meaning where a terminal is closed, where `nohup` ignores it, and in a worker that another watches.
    """
    mine = threading.current_thread() is threading.main_thread() and multiprocessing.parent_process() is None
    if not mine or os.isatty(0) or signal.getsignal(signal.SIGHUP) != signal.SIG_DFL:
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, call)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def is_one_of_several() -> bool:
    """Whether this process is a worker that another one started; a single worker is started by nobody."""
    return multiprocessing.parent_process() is not None


def end_with_parent(ending_seconds: float) -> None:
    """Stop this worker as by SIGTERM once the process that started it is gone, even by `kill -9`.

    It has `ending_seconds` to end.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def waiting() -> None:
        wait([parent.sentinel])
        log.error("the process that started this worker is gone, so the worker ends as well")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ending_seconds + END_SECONDS)
        os._exit(1)

    threading.Thread(target=waiting, name="parent", daemon=True).start()

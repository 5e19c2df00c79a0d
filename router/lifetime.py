"""Background tasks and signals of a process while its application runs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
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
END_SECONDS = 5.0  # after the shutdown timeout, before a process that has not exited is killed


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` as a task while the context is open. On exit the task is cancelled and awaited."""
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


def is_served() -> bool:
    """Whether the server of `router serve` runs this application, so that signals and the process are ours."""
    return threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGTERM))


def exempt_from_collection() -> None:
    """Exempt all objects that exist now from garbage collection. Call it at the end of the startup.

    They stay until the process ends. A full collection that visits them stops the event loop for 50 to 300 ms.
    """
    if is_served():
        gc.collect()
        gc.freeze()


@contextlib.contextmanager
def delayed_shutdown(seconds: float, notify: Callable[[], None]) -> Iterator[None]:
    """While the context is open, SIGTERM calls `notify` at once and the previous handler after `seconds`.

    A second SIGTERM calls the previous handler at once. Must be entered in the event loop.
    """
    if not is_served():
        yield
        return
    previous = signal.getsignal(signal.SIGTERM)
    assert callable(previous)
    loop, notified = asyncio.get_running_loop(), False

    def received(number: int, frame: FrameType | None) -> None:
        nonlocal notified
        if notified or not seconds:
            previous(number, frame)
            return
        notified = True
        notify()
        loop.call_soon_threadsafe(loop.call_later, seconds, previous, number, None)

    signal.signal(signal.SIGTERM, received)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextlib.contextmanager
def on_hangup(call: Callable[[], None]) -> Iterator[None]:
    """While the context is open, SIGHUP calls `call` in the event loop and does not end the process.

    SIGHUP keeps its default meaning if the process has a terminal, if `nohup` ignores it, and in a child worker.
    """
    handles_signals = threading.current_thread() is threading.main_thread() and multiprocessing.parent_process() is None
    if not handles_signals or os.isatty(0) or signal.getsignal(signal.SIGHUP) != signal.SIG_DFL:
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, call)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def is_child_worker() -> bool:
    """Whether this process is one of several workers, which a parent process starts."""
    return multiprocessing.parent_process() is not None


def exit_with_parent(shutdown_seconds: float) -> None:
    """Stop this worker as by SIGTERM when its parent process has ended, even if it was killed.

    The worker is killed if it has not ended `shutdown_seconds` (plus END_SECONDS) later.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait_for_parent() -> None:
        wait([parent.sentinel])
        log.error("the parent process has ended, so this worker stops")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(shutdown_seconds + END_SECONDS)
        os._exit(1)

    threading.Thread(target=wait_for_parent, name="parent", daemon=True).start()

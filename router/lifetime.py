"""Work that goes on beside the requests, for as long as the application runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from multiprocessing.connection import wait
from typing import Any

log = logging.getLogger("router")
END_SECONDS = 5.0  # after the time for what is running, until a process that does not end is ended


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` while the context is open; it is cancelled, and has ended, when the context is left."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def is_one_of_several() -> bool:
    """Whether this process is a worker that another one started; a single worker is started by nobody."""
    return multiprocessing.parent_process() is not None


def end_with_parent(drain_seconds: float) -> None:
    """Stop this worker as by SIGTERM once the process that started it is gone, even by `kill -9`.

    What is running has `drain_seconds` to end.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def waiting() -> None:
        wait([parent.sentinel])
        log.error("the process that started this worker is gone, so the worker ends as well")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(drain_seconds + END_SECONDS)
        os._exit(1)

    threading.Thread(target=waiting, name="parent", daemon=True).start()

"""Work that goes on beside the requests, for as long as the application runs."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncIterator, Coroutine
from multiprocessing.connection import wait
from typing import Any


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


def end_with_parent() -> None:
    """Stop this worker as by SIGTERM once the process that started it is gone, even by `kill -9`."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def waiting() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=waiting, name="parent", daemon=True).start()

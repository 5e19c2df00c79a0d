"""The lessons of a running router: this worker's are written to the file, and those of all workers are read from it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

from router.adaptation.adapter import Adapter
from router.adaptation.lessons import FILE, KEPT_SECONDS, LessonsError, add, read_lessons
from router.lifetime import running
from router.shared_file import signature

log = logging.getLogger("router")
LOOK_EVERY_SECONDS = 1.0


class LessonWatch:
    """Keeps what an adapter learnt and what the file says the same."""

    def __init__(self, adapter: Adapter, home: Path) -> None:
        """Read the file for the first time."""
        self._adapter = adapter
        self._path = home / FILE
        self._seen = signature(self._path)  # first: what changes meanwhile is looked at again
        self.problem = ""
        self._read()

    def save(self) -> None:
        """Write what was learnt since the last time."""
        new = tuple(self._adapter.unsaved)
        if not new:
            return
        try:
            add(self._path, new, time.time())
        except OSError as error:
            self._tell(f"what was learnt of refusals cannot be written to {self._path}: {error.strerror or error}")
        else:
            self._adapter.saved(new)

    def look(self) -> None:
        """Take up a file that changed, and let go of what is too old."""
        now = signature(self._path)
        oldest = min((lesson.since_unix for lesson in self._adapter.lessons), default=time.time())
        if now != self._seen or oldest < time.time() - KEPT_SECONDS:
            self._seen = now
            self._read()

    def _read(self) -> None:
        try:
            self._adapter.take(read_lessons(self._path, time.time()))
            self.problem = ""
        except LessonsError as error:
            self._tell(f"{error}; what was learnt before stays, and the next lesson replaces the file")

    def _tell(self, problem: str) -> None:
        if problem != self.problem:
            log.error("%s", problem)
        self.problem = problem


@contextlib.asynccontextmanager
async def following_lessons(watch: LessonWatch) -> AsyncIterator[None]:
    """Write and take up lessons while the application runs."""
    try:
        async with running(_follow(watch)):
            yield
    finally:
        watch.save()


async def _follow(watch: LessonWatch) -> None:
    while True:
        await asyncio.sleep(LOOK_EVERY_SECONDS)
        await asyncio.to_thread(watch.save)  # it waits for the disk, and for others that write
        watch.look()  # a small file, and rarely another one

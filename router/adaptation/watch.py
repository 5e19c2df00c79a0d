"""Synchronises the lessons of a running worker with the file that all workers share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

from router.adaptation.adapter import Adapter
from router.adaptation.lessons import FILE, MAX_AGE_SECONDS, LessonsError, add_lessons, read_lessons
from router.lifetime import repeating
from router.shared_file import signature

log = logging.getLogger("router")
CHECK_EVERY_SECONDS = 1.0


class LessonWatch:
    """Writes what an adapter learns to the file, and reads what the file gains."""

    def __init__(self, adapter: Adapter, home: Path) -> None:
        """Read the file for the first time."""
        self._adapter = adapter
        self._path = home / FILE
        self._signature = signature(self._path)  # before reading, so that no change is missed
        self.problem = ""
        self._read()

    def save(self) -> None:
        """Write the lessons that were learnt since the last call."""
        new = tuple(self._adapter.unsaved)
        if not new:
            return
        try:
            add_lessons(self._path, new, time.time())
        except OSError as error:
            self._report(f"lessons cannot be written to {self._path}: {error.strerror or error}")
        else:
            self._adapter.mark_saved(new)

    def check(self) -> None:
        """Read the file again if it changed or a lesson expired."""
        current = signature(self._path)
        oldest = min((lesson.since_unix for lesson in self._adapter.lessons), default=time.time())
        if current != self._signature or oldest < time.time() - MAX_AGE_SECONDS:
            self._signature = current
            self._read()

    async def synchronise(self) -> None:
        """Write and read."""
        await asyncio.to_thread(self.save)  # waits for the disk and for other writers
        self.check()

    def _read(self) -> None:
        try:
            self._adapter.replace_lessons(read_lessons(self._path, time.time()))
            self.problem = ""
        except LessonsError as error:
            self._report(f"{error}; known lessons remain in use, and the next lesson replaces the file")

    def _report(self, problem: str) -> None:
        if problem != self.problem:
            log.error("%s", problem)
        self.problem = problem


@contextlib.asynccontextmanager
async def following_lessons(watch: LessonWatch) -> AsyncIterator[None]:
    """Synchronise lessons while the context is open."""
    try:
        async with repeating(watch.synchronise, CHECK_EVERY_SECONDS):
            yield
    finally:
        watch.save()

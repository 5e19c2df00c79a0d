"""Detects that a client disconnects while its request is being processed."""

from __future__ import annotations

import asyncio

from router.client.body import Receive

WATCH_AFTER_SECONDS = 0.2  # most requests to a fast upstream end earlier and need no watcher


class DisconnectWatch:
    """Cancels the task of a request when its client disconnects. Start it after the request body is read."""

    __slots__ = ("_receive", "_task", "_timer", "_watcher", "disconnected")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.disconnected = False

    def start(self) -> None:
        """Watch the client from WATCH_AFTER_SECONDS on. Further calls have no effect."""
        if self._timer is None:
            self._task = asyncio.current_task()
            self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_SECONDS, self._begin)

    def stop(self) -> None:
        """Stop watching, and drop the reference to the watcher: its error refers to this object (a cycle)."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    def uncancel(self) -> None:
        """Undo the cancellation if the client disconnected. Call it where CancelledError is caught.

        Raises:
            asyncio.CancelledError: the task was cancelled for another reason, such as a shutdown.
        """
        if self.disconnected and self._task is not None:
            self._task.uncancel()
            return
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError

    def _begin(self) -> None:
        self._watcher = asyncio.ensure_future(self._wait_for_disconnect())

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.disconnected = True
        assert self._task is not None
        self._task.cancel()

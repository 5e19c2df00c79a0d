"""The client's side of a request: whether it is still there."""

from __future__ import annotations

import asyncio

from router.client.body import Receive

WATCH_AFTER_SECONDS = 0.2  # most requests to a fast upstream are over by then, and need nobody to watch the client


class Watch:
    """Cancels the task that answers a client, when the client has left. To be started once its body is read."""

    __slots__ = ("_receive", "_task", "_timer", "_watcher", "left")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.left = False

    def start(self) -> None:
        """Begin, unless it has begun."""
        if self._timer is None:
            self._task = asyncio.current_task()
            self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_SECONDS, self._begin)

    def stop(self) -> None:
        """Be done with it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def forgive(self) -> None:
        """Take back the cancellation if it was the client's leaving; to be called where that was caught."""
        if self.left and self._task is not None:
            self._task.uncancel()
            return
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError  # it was not the client but the server that stops

    def _begin(self) -> None:
        self._watcher = asyncio.ensure_future(self._until_left())

    async def _until_left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        assert self._task is not None
        self._task.cancel()

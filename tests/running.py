"""A router on a real port, for tests: uvicorn in a thread, as `serve` runs it but for the exporter."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import uvloop

from router.app import create_app
from router.journal.segments import parsed
from router.journal.writer import Record
from router.server import server_options
from router.settings import load


class Server(uvicorn.Server):
    """Ends as soon as it is told to; uvicorn looks every 0.1 s."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.told_to_end = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.told_to_end.wait()


class RunningRouter:
    """One worker on a free port; `records` reads its journal."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.home = home
        self.app = create_app(load(home=home, **settings))
        config = uvicorn.Config(
            self.app,
            host="127.0.0.1",
            port=0,
            log_level="critical",
            **{**server_options(self.app.worker.settings), "timeout_graceful_shutdown": 2},
        )
        self.server = Server(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self.server.started and time.monotonic() < deadline:
            time.sleep(0.005)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def _run(self) -> None:
        async def run() -> None:
            self._loop = asyncio.get_running_loop()
            await self.server.serve()

        uvloop.run(run())

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop it runs on, as `serve` has it."""
        assert self._loop is not None
        return self._loop

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return self.origin + "/v1"

    def stop(self) -> None:
        """Begin to end, for those who close several routers."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self.loop().call_soon_threadsafe(self.server.told_to_end.set)

    def close(self) -> None:
        self.stop()
        self._thread.join(10)

    def records(self, count: int = 1, seconds: float = 5.0) -> list[dict[str, Any]]:
        """The journal's records, oldest first, once there are `count` of them."""
        deadline = time.monotonic() + seconds
        while True:
            lines = [
                msgspec.structs.asdict(entry)
                for file in sorted((self.home / "journal").glob("*.jsonl"))
                for entry in parsed(file.read_bytes().splitlines())
                if isinstance(entry, Record)
            ]
            if len(lines) >= count or time.monotonic() > deadline:
                return sorted(lines, key=lambda record: record["started_unix_ns"])
            time.sleep(0.01)

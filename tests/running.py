"""A router on a real port, for tests: uvicorn in a thread, as `serve` runs it, without the exporter."""

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
    """Stops as soon as a stop is requested; uvicorn itself checks every 0.1 s."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop_requested = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.stop_requested.wait()


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
        """The event loop that the router runs on."""
        assert self._loop is not None
        return self._loop

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return self.origin + "/v1"

    def stop(self) -> None:
        """Request a stop, so that several routers can stop at once."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop().call_soon_threadsafe(self.server.stop_requested.set)

    def close(self) -> None:
        self.stop()
        self._thread.join(10)

    def records(self, count: int = 1, seconds: float = 5.0) -> list[dict[str, Any]]:
        """Wait for `count` records in the journal; return its records, oldest first."""
        deadline = time.monotonic() + seconds
        while True:
            records = [
                msgspec.structs.asdict(entry)
                for file in sorted((self.home / "journal").glob("*.jsonl"))
                for entry in parsed(file.read_bytes().splitlines())
                if isinstance(entry, Record)
            ]
            if len(records) >= count or time.monotonic() > deadline:
                return sorted(records, key=lambda record: record["started_unix_ns"])
            time.sleep(0.01)

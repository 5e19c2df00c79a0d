"""A real Chromium without a window, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def found() -> str | None:
    """The browser of this machine, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page. `errors` holds all that the page complained of: exceptions, console errors, refused requests."""

    def __init__(self) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        flags += ["--remote-debugging-port=0", f"--user-data-dir={self._profile.name}", "--disable-extensions"]
        flags += ["--force-color-profile=srgb", "--hide-scrollbars", "--disable-background-networking", "about:blank"]
        program = found()
        assert program is not None
        self._process = subprocess.Popen(
            [program, *flags], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.errors: list[str] = []
        self._last = 0
        self._stack = contextlib.ExitStack()
        self._socket = self._stack.enter_context(connect(self._page(), max_size=2**26))
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def _page(self) -> str:
        port = Path(self._profile.name) / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if port.exists() and (lines := port.read_text().splitlines()):
                with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
                    pages = [target for target in json.load(answer) if target["type"] == "page"]
                if pages:
                    return str(pages[0]["webSocketDebuggerUrl"])
            time.sleep(0.05)
        raise TimeoutError("the browser did not start")

    def send(self, method: str, **parameters: Any) -> Any:
        """Give a command, and wait for its answer."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while True:
            told = json.loads(self._socket.recv(timeout=30))
            if told.get("id") == self._last:
                assert "error" not in told, told
                return told["result"]
            self._hear(told)

    def _hear(self, told: dict[str, Any]) -> None:
        given = told.get("params", {})
        if told["method"] == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(given["exceptionDetails"])[:500])
        elif told["method"] == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
            self.errors.append(json.dumps(given["args"])[:500])
        elif told["method"] == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{given['entry']['text']} {given['entry'].get('url', '')}"[:500])

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'")

    def look(self, width: int, height: int, *, dark: bool = False, scale: float = 1.0) -> None:
        """Set the size of the window, and whether its user likes it dark."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        calm = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.send("Emulation.setEmulatedMedia", features=[scheme, calm])

    def run(self, script: str) -> Any:
        """The value of a script; a promise is awaited."""
        told = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait(self, condition: str, seconds: float = 20.0) -> Any:
        """The value of a script, once it is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            told = self.send("Runtime.evaluate", expression=condition, returnByValue=True)
            if "exceptionDetails" not in told and (value := told["result"].get("value")):
                return value
            time.sleep(0.05)
        raise AssertionError(f"never true: {condition}; the page says: {self.run('document.body.innerText')[:2000]}")

    def text(self, selector: str) -> str:
        return str(self.run(f"(document.querySelector({json.dumps(selector)}) || {{innerText: ''}}).innerText"))

    def press(self, key: str, code: int) -> None:
        """Press a key where the focus is."""
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        text = {"text": "\r"} if key == "Enter" else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def picture(self, path: Path, clip: dict[str, float] | None = None) -> None:
        """Save the whole page as PNG, or the part of it in `clip` (x, y, width, height, scale; CSS pixels)."""
        part = {"clip": clip} if clip else {}
        told = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True, **part)
        path.write_bytes(base64.b64decode(told["data"]))

    def close(self) -> None:
        self._stack.close()
        self._process.terminate()
        self._process.wait(10)
        self._profile.cleanup()

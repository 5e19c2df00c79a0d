"""Runs the project's commands in this process: a new interpreter takes one to three seconds to start.

`tests/test_wheel.py` and the tests of `serve`, of signals and of interrupted calibrations start real processes.
"""

import contextlib
import importlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path


class _Terminal(io.TextIOWrapper):
    """A standard stream that records its content and is not a terminal."""

    def __init__(self, content: str = "") -> None:
        super().__init__(io.BytesIO(content.encode()), encoding="utf-8", write_through=True)

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()


@contextlib.contextmanager
def _settings(environment: Mapping[str, str], folder: Path | None) -> Iterator[None]:
    """Apply only these settings, in this folder."""
    saved_environment, saved_folder = dict(os.environ), Path.cwd()
    try:
        for name in [name for name in os.environ if name.startswith(("ROUTER_", "OPENAI_", "MLFLOW_"))]:
            del os.environ[name]
        os.environ.update(environment)
        os.chdir(folder or saved_folder)
        yield
    finally:
        os.chdir(saved_folder)
        os.environ.clear()
        os.environ.update(saved_environment)


def run(
    *arguments: object, stdin: str = "", cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m ARGUMENTS`, such as `run("router", "decide", "Hello")`; settings are given by name."""
    package, *words = map(str, arguments)
    if "serve" in words:  # `serve` sets up logging and signals for the whole process
        command = [sys.executable, "-m", package, *words]
        with _settings(environment, cwd):
            return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
    main = importlib.import_module(f"{package}.__main__").main
    out, err = _Terminal(), _Terminal()
    saved = (sys.argv, sys.stdin)
    code: object = 0
    sys.argv, sys.stdin = [f"python -m {package}", *words], _Terminal(stdin)
    try:
        with _settings(environment, cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as error:
        code = error.code
        if isinstance(code, str):
            err.write(code + "\n")
            code = 1
    finally:
        sys.argv, sys.stdin = saved
    return subprocess.CompletedProcess(words, int(code or 0), out.text(), err.text())  # type: ignore[call-overload]

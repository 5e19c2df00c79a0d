"""Runs the commands of the project in this process: an interpreter of their own takes one to three seconds to start.

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
    """A standard stream that is kept, and is no terminal."""

    def __init__(self, content: str = "") -> None:
        super().__init__(io.BytesIO(content.encode()), encoding="utf-8", write_through=True)

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()


@contextlib.contextmanager
def _settings(environment: Mapping[str, str], folder: Path | None) -> Iterator[None]:
    """Only these settings, in this folder."""
    before, where = dict(os.environ), Path.cwd()
    try:
        for name in [name for name in os.environ if name.startswith(("ROUTER_", "OPENAI_", "MLFLOW_"))]:
            del os.environ[name]
        os.environ.update(environment)
        os.chdir(folder or where)
        yield
    finally:
        os.chdir(where)
        os.environ.clear()
        os.environ.update(before)


def run(
    *arguments: object, stdin: str = "", cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m ARGUMENTS`, such as `run("router", "decide", "Hello")`; settings are given by name."""
    half, *words = map(str, arguments)
    if "serve" in words:  # it sets up logging and signals for the whole process
        command = [sys.executable, "-m", half, *words]
        with _settings(environment, cwd):
            return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
    main = importlib.import_module(f"{half}.__main__").main
    out, err = _Terminal(), _Terminal()
    given = (sys.argv, sys.stdin)
    code: object = 0
    sys.argv, sys.stdin = [f"python -m {half}", *words], _Terminal(stdin)
    try:
        with _settings(environment, cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = ended.code
        if isinstance(code, str):
            err.write(code + "\n")
            code = 1
    finally:
        sys.argv, sys.stdin = given
    return subprocess.CompletedProcess(words, int(code or 0), out.text(), err.text())  # type: ignore[call-overload]

"""Runs calibrations against fake models on loopback: in the test's process, or in one that can be interrupted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from command_line import run
from fake_models import FakeModels

KEY = "sk-of-the-test"


def settings(fake: FakeModels, home: Path) -> dict[str, str]:
    return {
        "OPENAI_BASE_URL": fake.base_url,
        "OPENAI_API_KEY": KEY,
        "ROUTER_HOME": str(home),
        "COLUMNS": "120",
    }


def calibrate(fake: FakeModels, home: Path, *arguments: str) -> tuple[int, str]:
    """Run `python -m calibration ARGUMENTS` in this process; return its exit code and its output."""
    result = run("calibration", *arguments, **settings(fake, home))
    return _without_key(result.returncode, result.stdout + result.stderr)


def start_calibration(fake: FakeModels, home: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command in a separate process, as in a new shell; its imports take 3 s of CPU."""
    prefixes = ("MLFLOW_", "ROUTER_", "OPENAI_")  # MLFLOW_: MLflow leaves the store of another test in the environment
    shell = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "calibration", *arguments],
        env=shell | settings(fake, home),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def wait_for_exit(process: subprocess.Popen[str], stdin: str = "", seconds: float = 150) -> tuple[int, str]:
    """Wait for the end of the process; return its exit code and its output."""
    out, _ = process.communicate(stdin, timeout=seconds)
    return _without_key(process.returncode, out)


def _without_key(code: int, out: str) -> tuple[int, str]:
    assert KEY not in out and "Traceback" not in out, out
    return code, out


def read_answers(home: Path) -> list[dict[str, object]]:
    """Read the answers that a calibration stored in its folder."""
    path = home / "calibration" / "answers.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

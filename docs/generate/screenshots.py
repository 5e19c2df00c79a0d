"""Take the screenshots of the documentation, in docs/images. All that they show is simulated; nothing is billed.

    python docs/generate/screenshots.py                 all of them; needs Chromium, takes about three minutes
    python docs/generate/screenshots.py decide page     some of them: decide, calibration, page, sentinel

Together with the pictures, the output of the tutorial's calibration is written to build/tutorial-run.txt. The tutorial
quotes it.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from camera import COLUMNS, opened, save, save_terminal
from running import RunningRouter
from simulated_hour import simulate_hour
from simulated_sentinel import TYPES, simulate_sentinel

from calibration.policies import read_policy
from router.policy.distribution import SHIPPED
from router.policy.sentinel import dump

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
QUESTION = "A farmer has 12 cows, buys 7 more and sells 4. How many are left?"
SHOW_FEW_ROWS = """
document.querySelector(".scroll.long").style.maxHeight = "none";
document.querySelectorAll("#recent tbody tr:nth-child(n+17)").forEach((row) => { row.hidden = true; });
"""
LOADED = "!!document.querySelector('#tiles .tile') && !!document.querySelector('#recent tbody tr')"


def take_decide() -> None:
    """`router decide` in the terminal."""
    command = ["-m", "router", "decide", QUESTION]
    with TemporaryDirectory() as folder:
        save_terminal(IMAGES / "tutorial-decide.png", _shown(command), _run(command, Path(folder)))


def take_calibration() -> None:
    """The tutorial's calibration: its output in the terminal, and its report."""
    command = ["-m", "calibration", "run", "--questions", "mine.jsonl", "--budget-usd", "5"]
    with TemporaryDirectory() as name:
        folder = Path(name)
        _run(shlex.split("-m calibration generate --seed 7 --per-type 20 --out mine.jsonl"), folder)
        script = [sys.executable, str(ROOT / "examples" / "simulated_openai.py"), "mine.jsonl"]
        server = subprocess.Popen(script, cwd=folder, env=_environment(), stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            address = next(match[1] for line in server.stdout if (match := re.search(r"OPENAI_BASE_URL=(\S+)", line)))
            upstream = {"OPENAI_API_KEY": "simulated", "OPENAI_BASE_URL": address}
            output = _run([*command, "--yes"], folder, **upstream)
        finally:
            server.terminate()
        (ROOT / "build").mkdir(exist_ok=True)
        (ROOT / "build" / "tutorial-run.txt").write_text(re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", output))
        begin = output.rindex("\n", 0, output.index("Comparison on all")) + 1
        save_terminal(IMAGES / "tutorial-run.png", _shown(command), output[begin:])
        with opened(f"file://{folder}/.router/calibration/report.html", 1280) as browser:
            save(browser, IMAGES / "tutorial-report.png", last=".pair")


def take_page() -> None:
    """The page after an hour of requests."""
    with TemporaryDirectory() as name:
        simulate_hour(Path(name))
        router = RunningRouter(Path(name))
        try:
            with opened(router.origin + "/", 1100) as browser:
                browser.wait(LOADED)
                save(browser, IMAGES / "tutorial-page.png", last=".grid.two")
            with opened(router.origin + "/", 1280) as browser:
                browser.wait(LOADED)
                browser.evaluate("document.querySelector('#try button[type=submit]').click()")
                browser.wait("document.querySelector('#tried').innerText.includes('Policy')")
                save(browser, IMAGES / "dashboard.png", last=".try-curve")
            with opened(router.origin + "/", 1280, dark=True) as browser:
                browser.wait(LOADED)
                browser.evaluate(SHOW_FEW_ROWS)
                browser.evaluate("document.querySelector('#recent tbody tr:nth-child(3) .open').click()")
                browser.wait("!!document.querySelector('#recent .why .explained')")
                section = ":is(section):has(> .split > {})"
                first, last = section.format("#types-title"), section.format("#recent-title")
                save(browser, IMAGES / "dashboard-decisions.png", first, last)
        finally:
            router.close()


def take_sentinel() -> None:
    """The page's section about the sentinel."""
    with TemporaryDirectory() as name:
        (Path(name) / "sentinel.json").write_bytes(dump(simulate_sentinel(read_policy(SHIPPED))))
        router = RunningRouter(Path(name))
        try:
            with opened(router.origin + "/", 1280) as browser:
                browser.wait(f"document.querySelectorAll('#watched svg.evolution').length === {len(TYPES)}")
                save(browser, IMAGES / "dashboard-sentinel.png", "#watched-section")
        finally:
            router.close()


def _run(arguments: list[str], folder: Path, **variables: str) -> str:
    """Run Python in `folder` and return its output, with colours."""
    environment = _environment() | {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    output = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment | variables,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    return re.sub(r"\x1b\[[?0-9;]*[A-Za-ln-z]", "", output)  # without the moves of the cursor


def _shown(arguments: list[str]) -> str:
    """The command as the tutorial has it."""
    return ".venv/bin/python " + " ".join(f'"{word}"' if " " in word else word for word in arguments)


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


PICTURES: dict[str, Callable[[], None]] = {
    "decide": take_decide,
    "calibration": take_calibration,
    "page": take_page,
    "sentinel": take_sentinel,
}

if __name__ == "__main__":
    for variable in [name for name in os.environ if name.startswith(("OPENAI_", "ROUTER_", "MLFLOW_"))]:
        del os.environ[variable]
    for picture in sys.argv[1:] or PICTURES:
        if picture not in PICTURES:
            sys.exit(f"unknown picture {picture!r}; the pictures are {', '.join(PICTURES)}")
        PICTURES[picture]()

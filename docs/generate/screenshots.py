"""Takes the screenshots of the tutorial, by Chromium.

python docs/generate/screenshots.py page http://127.0.0.1:8000/ docs/images/page.png [HEIGHT]
python docs/generate/screenshots.py terminal docs/images/decide.png 0 python -m router decide "What is 2 + 2?"
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "tests"))

from browser import Browser

WIDTH = 1100
STYLE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 18px 22px; background: #15181e; width: fit-content; }}
pre {{ margin: 0; color: #e6e6e6; font: 15px/1.35 "DejaVu Sans Mono", monospace; }}
{stylesheet}</style><pre>{code}</pre>"""


def picture(url: str, path: Path, height: int, *, fitted: bool = False) -> None:
    """Save what is at `url` as PNG; `fitted` is cut to its content."""
    browser = Browser()
    try:
        browser.look(WIDTH, height, scale=1.5)
        browser.open(url)
        browser.evaluate("new Promise(done => setTimeout(done, 2500))")  # until the page has its figures
        if fitted:
            box = browser.evaluate("[document.body.offsetWidth, document.body.offsetHeight]")
            browser.look(*box, scale=1.5)
        browser.save_screenshot(path, whole=False)
    finally:
        browser.close()


def terminal(path: Path, lines: int, command: list[str]) -> None:
    """Save the last `lines` of the output of a command as a terminal shows them; all of them for 0."""
    if command[0] == "-":
        command, shown = command[1:], sys.stdin.read()
    else:
        environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": "100", "TERM": "xterm-256color"}
        shown = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    shown = "\n".join(shown.rstrip().splitlines()[-lines:])
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=100, file=nowhere)
        console.print(Text("$ " + " ".join(f'"{word}"' if " " in word else word for word in command)))
        console.print(Text.from_ansi(shown))
    with tempfile.NamedTemporaryFile("w", suffix=".html") as page:
        page.write(console.export_html(code_format=STYLE))
        page.flush()
        picture(f"file://{page.name}", path, 800, fitted=True)


if __name__ == "__main__":
    kind, *given = sys.argv[1:]
    if kind == "page":
        picture(given[0], Path(given[1]), int(given[2]) if len(given) > 2 else 800)
    else:
        terminal(Path(given[0]), int(given[1]), given[2:])

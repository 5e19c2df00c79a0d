"""The dashboard at `/`: static HTML, CSS and JavaScript. The scripts fetch the data from the API with a key."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Response

FILES = {
    "/": ("index.html", "text/html"),
    "/dashboard/style.css": ("style.css", "text/css"),
    "/dashboard/page.js": ("page.js", "text/javascript"),
    "/dashboard/charts.js": ("charts.js", "text/javascript"),
    "/dashboard/keys.js": ("keys.js", "text/javascript"),
    "/dashboard/sections.js": ("sections.js", "text/javascript"),
    "/dashboard/watched.js": ("watched.js", "text/javascript"),
    "/dashboard/words.js": ("words.js", "text/javascript"),
}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


def add_routes(app: FastAPI) -> None:
    """Add the page and its files."""
    folder = Path(__file__).parent
    for path, (name, media_type) in FILES.items():
        _add(app, path, (folder / name).read_bytes(), media_type)


def _add(app: FastAPI, path: str, content: bytes, media_type: str) -> None:
    @app.get(path)
    async def part() -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

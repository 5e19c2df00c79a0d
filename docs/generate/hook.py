"""The mkdocs hook that adds the pages of the reference which are generated from the code."""

from __future__ import annotations

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))  # mkdocs loads this file without its folder

import command_pages
import http_page
import metrics_page
import settings_page

PAGES = {
    "reference/commands.md": command_pages.page,
    "reference/settings.md": settings_page.page,
    "reference/http-api.md": http_page.page,
    "reference/metrics.md": metrics_page.page,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add each generated page."""
    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page()))
    return files

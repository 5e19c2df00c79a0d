"""The pages of docs/ match the code: reasons, headers, fields, links to files, and generated pages."""

import re
from pathlib import Path

import pytest

from calibration.questions import questions
from router.endpoints.openapi_document import ANSWER_HEADERS, ROUTING_HEADERS
from router.journal.writer import Record
from router.policy.reasons import Reason
from router.settings import Settings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*DOCS.rglob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"))]


@pytest.fixture
def generators(monkeypatch):
    """The modules that generate pages."""
    monkeypatch.syspath_prepend(str(DOCS / "generate"))


def first_cells(page):
    """The names in the first column of the tables of a page."""
    rows = re.findall(r"^\| (.*?) \|", (DOCS / page).read_text(), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_the_page_of_reasons_lists_exactly_the_reasons():
    assert first_cells("reference/reasons.md") == {reason.value for reason in Reason}


def test_every_snippet_includes_an_example():
    lines = [line for page in PAGES for line in page.read_text().splitlines() if line.lstrip().startswith("--8")]
    assert lines
    for line in lines:
        marker = re.fullmatch(r'\s*--8<-- "([^"]+)"', line)
        assert marker and (ROOT / marker[1]).is_file(), line


def test_every_header_is_on_the_page_of_headers():
    assert {*ANSWER_HEADERS, *ROUTING_HEADERS} <= first_cells("reference/headers.md")


def test_headers_in_the_code_are_in_the_document_and_on_the_page():
    code = "".join(path.read_text() for path in (ROOT / "router").rglob("*.py"))
    assert set(re.findall(r'b"(x-router-[a-z-]+)"', code)) == {
        name for name in {*ANSWER_HEADERS, *ROUTING_HEADERS} if name.startswith("x-router")
    }


def test_every_field_of_a_record_and_of_a_question_is_on_the_page_of_files():
    named = first_cells("reference/files.md")
    assert set(Record.__struct_fields__) <= named
    assert set(questions.FIELDS) <= named | {"tolerance", "example"}  # these two are fields of checks


def test_the_generated_pages_have_every_command_setting_and_metric(generators):
    import command_pages
    import metrics_page
    import settings_page

    commands = command_pages.page()
    for name in ("router serve", "router keys rotate", "calibration run", "calibration generate"):
        assert f"### {name}\n" in commands
    assert "`--budget-usd` `USD`" in commands
    settings = settings_page.page()
    assert [name for name in Settings.model_fields if f"#{name} " not in settings and f"[{name}" not in settings] == []
    metrics = metrics_page.page()
    alerts = (ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text()
    metric_names = {
        re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"\b(?:router|gen_ai)_[a-z_]+", alerts)
    }
    assert {name for name in metric_names if f"`{name}`" not in metrics} == set()


def test_pages_name_only_existing_files():
    named = r"`((?:router|calibration|tests|benchmarks|data|deploy|examples|docs)/[\w/.-]+\.\w+)`"
    missing = {
        (page.name, path)
        for page in PAGES
        for path in re.findall(named, page.read_text())
        if not (ROOT / path).exists() and page.name != "decisions.md"  # the changelog names earlier files
    }
    assert missing == set()


def test_the_program_on_the_page_of_the_python_api_runs(capsys):
    code = re.search(r"```python\n(.*?)```", (DOCS / "reference" / "python.md").read_text(), re.DOTALL)
    exec(code[1], {})
    assert capsys.readouterr().out == "gpt-4o-mini cheap_is_enough\n"


def test_links_in_the_readme_and_similar_files_are_valid():
    for page in PAGES[-3:]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)

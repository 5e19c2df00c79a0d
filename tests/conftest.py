import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from fake_openai import FakeOpenAI
from hypothesis import settings
from refusing_openai import RefusingOpenAI
from running import RunningRouter

pytest.register_assert_rewrite("replicas")
settings.register_profile("project", deadline=None)  # the machine may be busy: time is not what is tested
settings.load_profile("project")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recorded outcomes beside the project; tests that need it are skipped where it is absent."""
    folder = Path(__file__).parent.parent.parent / "shared" / "data"
    if not (folder / "calibration.jsonl.gz").is_file():
        pytest.skip("the recorded outcomes (../shared/data) are not here")
    return folder


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tests see no key, address or setting of the machine they run on."""
    for name in list(os.environ):
        ours = name.startswith(("ROUTER_", "OPENAI_", "MLFLOW_TRACKING", "MLFLOW_EXPERIMENT"))
        if ours or name.lower().endswith("_proxy") or name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            monkeypatch.delenv(name)


@pytest.fixture
def closed_port() -> int:
    """A port of loopback that nobody listens on."""
    server = FakeOpenAI()
    server.close()
    return server.port


@pytest.fixture
def openai_server() -> Iterator[FakeOpenAI]:
    """An OpenAI on loopback."""
    server = FakeOpenAI()
    yield server
    server.close()


@pytest.fixture
def refusing_openai() -> Iterator[RefusingOpenAI]:
    """An OpenAI on loopback that refuses what the real models refuse."""
    server = RefusingOpenAI()
    yield server
    server.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., RunningRouter]]:
    """Starts routers on free ports; settings are given by name."""
    running: list[RunningRouter] = []

    def start(**settings: Any) -> RunningRouter:
        home = settings.pop("home", tmp_path / f"home-{len(running)}")
        router = RunningRouter(home, **settings)
        running.append(router)
        return router

    yield start
    for router in running:
        router.close()


@pytest.fixture
def router(serve: Callable[..., RunningRouter], openai_server: FakeOpenAI) -> RunningRouter:
    """A router in front of the OpenAI on loopback."""
    return serve(openai_base_url=openai_server.url, openai_api_key="sk-upstream")


@pytest.fixture(scope="session")
def _empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with its tables, made once: its migrations take five seconds of CPU."""
    from router.exporter.tracestore import open_store

    home = tmp_path_factory.mktemp("store")
    open_store(f"sqlite:///{home / 'mlflow.db'}", home)
    return home / "mlflow.db"


@pytest.fixture
def store_with_tables(_empty_store: Path) -> Callable[[Path], str]:
    """Puts an empty MLflow store into a folder; gives its URI."""

    def put(folder: Path) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        made, copy = sqlite3.connect(_empty_store), sqlite3.connect(folder / "mlflow.db")
        with contextlib.closing(made), contextlib.closing(copy):
            made.backup(copy)
        return f"sqlite:///{folder / 'mlflow.db'}"

    return put


@pytest.fixture(scope="module")
def browsing() -> Iterator[Browser]:
    """A Chromium that the tests of a module share."""
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def browser(browsing: Browser) -> Iterator[Browser]:
    """The shared Chromium with an empty page, and nothing kept of the test before."""
    browsing.errors.clear()
    browsing.look(1280, 900)
    yield browsing
    browsing.run("sessionStorage.clear()")
    browsing.open("about:blank")

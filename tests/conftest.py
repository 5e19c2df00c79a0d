import contextlib
import functools
import gc
import os
import sqlite3
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpcore2
import pytest
from browser import Browser
from fake_openai import FakeOpenAI
from hypothesis import settings
from refusing_openai import RefusingOpenAI
from running import RunningRouter

from router.serving import policy

pytest.register_assert_rewrite("replicas")
settings.register_profile("project", deadline=None)  # on a busy machine an example may take long
settings.load_profile("project")
LONGEST = (
    *("test_promotion", "test_verification", "test_run", "test_retirement", "test_app_serve", "test_rounds"),
    *("test_watch", "test_exporter_server", "test_exporter", "test_wheel", "test_judgements", "test_workers"),
)
CERTIFICATES = {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}  # variables that name trusted certificates


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest files first, so that parallel workers finish at about the same time."""
    positions = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: positions.get(item.path.stem, len(positions)))


def pytest_collection_finish() -> None:
    """Exempt imported objects from garbage collection, which took a tenth of the tests' time."""
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recorded outcomes beside the project; tests that need it are skipped where it is absent."""
    folder = Path(__file__).parent.parent.parent / "shared" / "data"
    if not (folder / "calibration.jsonl.gz").is_file():
        pytest.skip("the recorded outcomes (../shared/data) are not here")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _system_certificates_read_once() -> Iterator[None]:
    """Share one TLS context among HTTP clients: reading the system's certificates takes 60 ms of CPU."""
    create_context = httpcore2.default_ssl_context
    cached_context = functools.cache(create_context)

    def context(**options: Any) -> ssl.SSLContext:
        return create_context(**options) if os.environ.keys() & CERTIFICATES else cached_context(**options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore2, "default_ssl_context", context)
        yield


@pytest.fixture(scope="session", autouse=True)
def _policies_parsed_once() -> Iterator[None]:
    """Share policies of the same bytes among routers: each takes 70 ms of CPU to parse and 16 MB of memory."""
    parse = policy.parse
    cached_parse = functools.lru_cache(8)(lambda files: parse(dict(files)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, "parse", lambda files: cached_parse(tuple(files.items())))
        yield


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the machine's own keys, addresses and settings from the environment."""
    for name in list(os.environ):
        ours = name.startswith(("ROUTER_", "OPENAI_", "MLFLOW_TRACKING", "MLFLOW_EXPERIMENT"))
        if ours or name.lower().endswith("_proxy") or name in CERTIFICATES:
            monkeypatch.delenv(name)


@pytest.fixture
def closed_port() -> int:
    """A loopback port without a listener."""
    server = FakeOpenAI()
    server.close()
    return server.port


@pytest.fixture
def openai_server() -> Iterator[FakeOpenAI]:
    """A fake OpenAI server on loopback."""
    server = FakeOpenAI()
    yield server
    server.close()


@pytest.fixture
def refusing_openai() -> Iterator[RefusingOpenAI]:
    """A fake OpenAI server on loopback that refuses the requests that the real models refuse."""
    server = RefusingOpenAI()
    yield server
    server.close()


@pytest.fixture
def start_router(tmp_path: Path) -> Iterator[Callable[..., RunningRouter]]:
    """A function that starts a router on a free port; its keyword arguments are settings."""
    running: list[RunningRouter] = []

    def start(**settings: Any) -> RunningRouter:
        home = settings.pop("home", tmp_path / f"home-{len(running)}")
        router = RunningRouter(home, **settings)
        running.append(router)
        return router

    yield start
    for router in running:
        router.stop()
    for router in running:
        router.close()


@pytest.fixture
def router(start_router: Callable[..., RunningRouter], openai_server: FakeOpenAI) -> RunningRouter:
    """A router in front of the fake OpenAI server."""
    return start_router(openai_base_url=openai_server.url, openai_api_key="sk-upstream")


@pytest.fixture(scope="session")
def create_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """A function that creates an empty MLflow store in a folder and returns its URI.

    The store's migrations take 5 s of CPU, so they run once per session.
    """
    from router.exporter.tracestore import open_store

    home = tmp_path_factory.mktemp("store")
    open_store(f"sqlite:///{home / 'mlflow.db'}", home)

    def copy_store(folder: Path) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        source, copy = sqlite3.connect(home / "mlflow.db"), sqlite3.connect(folder / "mlflow.db")
        with contextlib.closing(source), contextlib.closing(copy):
            source.backup(copy)
        return f"sqlite:///{folder / 'mlflow.db'}"

    return copy_store


@pytest.fixture(scope="module")
def shared_browser() -> Iterator[Browser]:
    """A Chromium that is shared by the tests of a module."""
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def browser(shared_browser: Browser) -> Iterator[Browser]:
    """The shared Chromium with an empty page and without state of earlier tests."""
    shared_browser.errors.clear()
    shared_browser.look(1280, 900)
    yield shared_browser
    shared_browser.evaluate("sessionStorage.clear()")
    shared_browser.open("about:blank")

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
settings.register_profile("project", deadline=None)  # the machine may be busy: time is not what is tested
settings.load_profile("project")
LONGEST = (
    *("test_promotion", "test_verification", "test_run", "test_retirement", "test_app_serve", "test_rounds"),
    *("test_watch", "test_exporter_server", "test_exporter", "test_wheel", "test_judgements", "test_workers"),
)
CERTIFICATES = {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}  # variables that say what is trusted


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first, so that no process is left with a long one when the others are done."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_collection_finish() -> None:
    """Spare the garbage collector what was imported: it took a tenth of the time of the tests."""
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
    """HTTP clients of the tests share a TLS context: it takes each 60 ms of CPU to read the system's certificates."""
    read = httpcore2.default_ssl_context
    shared = functools.cache(read)

    def context(**options: Any) -> ssl.SSLContext:
        return read(**options) if os.environ.keys() & CERTIFICATES else shared(**options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore2, "default_ssl_context", context)
        yield


@pytest.fixture(scope="session", autouse=True)
def _policies_parsed_once() -> Iterator[None]:
    """Routers of the tests share a policy of the same bytes: it takes 70 ms of CPU to parse and 16 MB to hold."""
    parse = policy.parse
    shared = functools.lru_cache(8)(lambda files: parse(dict(files)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, "parse", lambda files: shared(tuple(files.items())))
        yield


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see no key, address or setting of the machine they run on."""
    for name in list(os.environ):
        ours = name.startswith(("ROUTER_", "OPENAI_", "MLFLOW_TRACKING", "MLFLOW_EXPERIMENT"))
        if ours or name.lower().endswith("_proxy") or name in CERTIFICATES:
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
        router.stop()
    for router in running:
        router.close()


@pytest.fixture
def router(serve: Callable[..., RunningRouter], openai_server: FakeOpenAI) -> RunningRouter:
    """A router in front of the OpenAI on loopback."""
    return serve(openai_base_url=openai_server.url, openai_api_key="sk-upstream")


@pytest.fixture(scope="session")
def store_with_tables(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Puts an empty MLflow store into a folder; gives its URI. Its migrations take 5 s of CPU, so they run once."""
    from router.exporter.tracestore import open_store

    home = tmp_path_factory.mktemp("store")
    open_store(f"sqlite:///{home / 'mlflow.db'}", home)

    def put(folder: Path) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        made, copy = sqlite3.connect(home / "mlflow.db"), sqlite3.connect(folder / "mlflow.db")
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

"""MLflow's own pages over what was recorded."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

from router.journal.redaction import without_passwords
from router.settings import SettingsError, is_loopback, load, with_home

_DATABASES = ("sqlite:", "postgresql", "mysql", "mssql")  # by which MLflow's own stores are named


def require_store(uri: str) -> None:
    """Check that this installation can keep traces at `uri`: mlflow-skinny has MLflow's client without its databases.

    Raises:
        SettingsError: `uri` is a database, and only MLflow's client is installed.
    """
    if uri.startswith(_DATABASES) and find_spec("alembic") is None:
        raise SettingsError(
            "this installation has MLflow's client and no store of its own: set MLFLOW_TRACKING_URI to an MLflow "
            "server, or install the package mlflow"
        )


def show(host: str, port: int, *, everybody: bool = False) -> int:
    """Serve MLflow's pages over the store of the settings until interrupted; the exit code.

    Raises:
        SettingsError: others than this machine could reach them, and it is not said that they may.
    """
    if not everybody and not is_loopback(host):
        raise SettingsError(
            f"whoever reaches {host} could read all that is recorded without a key: serve 127.0.0.1, or add --everybody"
        )
    from router.exporter.tracestore import is_sqlite, offline, opened

    settings = with_home(load())
    offline()
    if not is_sqlite(settings.tracking_uri):
        sys.stdout.write(
            f"The traces are in MLflow at {without_passwords(settings.tracking_uri)}, which has its own pages.\n"
        )
        return 0
    require_store(settings.tracking_uri)
    opened(settings.tracking_uri, settings.home)  # made first, so that page and exporter cannot both make it
    sys.stdout.write(f"Traces: http://{host}:{port}/#/experiments, experiment {settings.mlflow_experiment_name!r}\n")
    sys.stdout.flush()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", settings.tracking_uri),
        *("--artifacts-destination", str((settings.home / "artifacts").absolute())),
    ]
    try:
        return subprocess.call(command)  # noqa: S603  our own interpreter
    except KeyboardInterrupt:
        return 0

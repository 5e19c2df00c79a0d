"""`python -m router ui`: serve the MLflow UI for the recorded traces."""

from __future__ import annotations

import subprocess
import sys

from router.exporter.process import require_store
from router.journal.redaction import without_passwords
from router.settings import SettingsError, is_loopback, load, with_home


def show(host: str, port: int, *, everybody: bool = False) -> int:
    """Serve the MLflow UI over the configured store until interrupted, and return the exit code.

    Raises:
        SettingsError: `host` is not a loopback address and `everybody` is false.
    """
    if not everybody and not is_loopback(host):
        raise SettingsError(
            f"anyone who can reach {host} could read all records without a key: use 127.0.0.1, or add --everybody"
        )
    from router.exporter.tracestore import disable_network_lookups, is_sqlite, open_store

    settings = with_home(load())
    disable_network_lookups()
    if not is_sqlite(settings.tracking_uri):
        sys.stdout.write(
            f"The traces are in MLflow at {without_passwords(settings.tracking_uri)}. Open its UI there.\n"
        )
        return 0
    require_store(settings.tracking_uri)
    open_store(
        settings.tracking_uri, settings.home
    )  # created first, so that the UI and the exporter cannot both create it
    sys.stdout.write(f"Traces: http://{host}:{port}/#/experiments, experiment {settings.mlflow_experiment_name!r}\n")
    sys.stdout.flush()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", settings.tracking_uri),
        *("--artifacts-destination", str((settings.home / "artifacts").absolute())),
    ]
    try:
        return subprocess.call(command)  # noqa: S603  runs this interpreter
    except KeyboardInterrupt:
        return 0

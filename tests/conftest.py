from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recorded outcomes beside the project; tests that need it are skipped where it is absent."""
    folder = Path(__file__).parent.parent.parent / "shared" / "data"
    if not (folder / "calibration.jsonl.gz").is_file():
        pytest.skip("the recorded outcomes (../shared/data) are not here")
    return folder

"""What the tests of runs share."""

from pathlib import Path

import pytest

from tests.training.toy import write_data


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON lines of pictures to read and to paint."""
    return write_data(tmp_path_factory.mktemp("data"))

"""Fixtures of the tests of data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.trees import PLACES, Put


@pytest.fixture(params=PLACES)
def put(request: pytest.FixtureRequest, tmp_path: Path) -> Put:
    """Writes a tree as a folder, or as an archive of each kind."""
    return lambda files: str(PLACES[request.param](tmp_path, files))

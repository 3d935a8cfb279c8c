"""A ledger of its own for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stillhouse.asking import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened

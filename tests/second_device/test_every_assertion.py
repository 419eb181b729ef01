"""Every public assertion, held on the second device to what it is held to on the cpu.

The tests are those of ``tests/unit/test_every_assertion.py``: under another default device their
recipes build other subjects.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..unit.test_every_assertion import *  # noqa: F403
from .here import HERE


@pytest.fixture(autouse=True)
def on_the_second_device() -> Iterator[None]:
    with HERE:
        yield

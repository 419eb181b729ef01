"""What is tested is what is installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest_paramcheck


def test_the_installed_package_is_tested_in_a_tox_environment() -> None:
    where = Path(pytest_paramcheck.__file__).resolve()
    if "TOX_ENV_NAME" in os.environ:
        assert where.is_relative_to(Path(sys.prefix).resolve()), "the source tree shadows the wheel"
    assert (where.parent / "py.typed").exists()

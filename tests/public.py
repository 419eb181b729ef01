"""The public names that tests go through, one by one."""

from __future__ import annotations

import pytest_paramcheck

#: The assertions: each is also a fixture of the same name.
ASSERTIONS = [name for name in pytest_paramcheck.__all__ if name.startswith("assert_")]

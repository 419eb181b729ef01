"""What all tests share: how pytest is run, and how hard hypothesis looks."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = "pytester"

# Everyday: the same examples each time, so that a red run means a change and not luck.
# Nightly (HYPOTHESIS_PROFILE=nightly): new ones each time, and twenty times as many.
settings.register_profile("everyday", max_examples=500, deadline=None, derandomize=True)
settings.register_profile(
    "nightly",
    max_examples=10_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "everyday"))


@pytest.fixture(params=[(), ("-n", "0"), ("-n", "2")], ids=["plain", "n0", "n2"])
def plugin_args(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """How pytest is run: without xdist's options, in one process, with two workers."""
    args: tuple[str, ...] = request.param
    return args

"""What all tests share: how hard hypothesis looks."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

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

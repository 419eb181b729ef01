"""What the plugin writes into a report's ``user_properties``, and how it reads it back.

They reach JUnit and survive xdist, and they are everybody's: what another plugin has put there
need not even be a pair.
"""

from __future__ import annotations

import pytest

DEVICE = "param_device"
#: The asked devices on which the test is not due, joined with commas.
NOT_ON = "param_not_on"
MODEL = "param_model"
CHECK = "param_check"


def own_properties(report: pytest.TestReport) -> dict[str, str]:
    """Return the properties of a report that are ours."""
    found: dict[str, str] = {}
    for entry in report.user_properties:
        pair: object = entry
        if isinstance(pair, (tuple, list)) and len(pair) == 2:
            name, value = pair
            if name in (DEVICE, NOT_ON, MODEL, CHECK) and isinstance(value, str):
                found[name] = value
    return found

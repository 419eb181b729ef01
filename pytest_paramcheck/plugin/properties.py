"""What the plugin writes into a report's ``user_properties``, and how it reads it back.

They reach JUnit and survive xdist, and they are everybody's: what another plugin has put there
need not even be a pair.
"""

from __future__ import annotations

import pytest

DEVICE = "param_device"
#: The asked devices on which the test is not due, joined with commas.
NOT_ON = "param_not_on"
#: On how many ranks a test runs, as text.
RANKS = "param_ranks"
MODEL = "param_model"
CHECK = "param_check"
#: How the model is run, what is not declared of it, and the checks that are left out for want of
#: inputs; the last two joined with commas.
INPUTS = "param_inputs"
NOT_DECLARED = "param_not_declared"
WANT_INPUTS = "param_want_inputs"
_OWN = (DEVICE, NOT_ON, RANKS, MODEL, CHECK, INPUTS, NOT_DECLARED, WANT_INPUTS)


def own_properties(report: pytest.TestReport) -> dict[str, str]:
    """Return the properties of a report that are ours."""
    found: dict[str, str] = {}
    for entry in report.user_properties:
        pair: object = entry
        if isinstance(pair, (tuple, list)) and len(pair) == 2:
            name, value = pair
            if name in _OWN and isinstance(value, str):
                found[name] = value
    return found

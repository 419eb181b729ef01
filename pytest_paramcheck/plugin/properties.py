"""What the plugin writes into a report's ``user_properties``, and how it reads it back.

They reach JUnit and survive xdist, and they are everybody's: what another plugin has put there
need not even be a pair.

Tests: ``tests/integration/test_reporting.py``, ``test_model_cases.py`` and ``test_workers.py``.
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
#: What is not declared of a model, joined with commas.
NOT_DECLARED = "param_not_declared"
#: Of a check that runs the model: on what; or what to write where there was nothing.
INPUTS = "param_inputs"
WANT_INPUTS = "param_want_inputs"
#: What inputs that nobody declared do not come to.
LEFT_OUT = "param_left_out"
_OWN = (DEVICE, NOT_ON, RANKS, MODEL, CHECK, INPUTS, LEFT_OUT, NOT_DECLARED, WANT_INPUTS)


def is_check(item: pytest.Item) -> bool:
    """Whether an item runs a whole-model check."""
    return CHECK in own_properties(item)


def own_properties(of: pytest.TestReport | pytest.Item) -> dict[str, str]:
    """Return the properties of a report, or of an item, that are ours."""
    found: dict[str, str] = {}
    for entry in of.user_properties:
        pair: object = entry
        if isinstance(pair, (tuple, list)) and len(pair) == 2:
            name, value = pair
            if name in _OWN and isinstance(value, str):
                found[name] = value
    return found

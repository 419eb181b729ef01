"""The device the tests of this folder run on; without it a file that imports this is skipped."""

from __future__ import annotations

import pytest
import torch

from .build import why_not
from .twin import is_there

if not is_there():
    reason = why_not() or "tox run -e device builds and loads it"
    pytest.skip(f"no second device: {reason}", allow_module_level=True)

#: The second index: what holds for the current one alone does not pass here.
HERE = torch.device("twin:1")

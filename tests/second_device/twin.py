"""``torch.twin``: the Python side of the second device, and the pytest plugin that registers it.

``pytest -p tests.second_device.twin`` makes it the machine's accelerator for a run, as a conftest
that imports a vendor's package does. Where it was not built, the run says so and runs nothing.
"""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from .build import library, why_not

NAME = "twin"


#: Set where the device has to be there: then a run without it fails.
REQUIRED = "SECOND_DEVICE_REQUIRED"


def is_there() -> bool:
    """Whether this process has the device."""
    return hasattr(torch, NAME)


def pytest_load_initial_conftests() -> None:
    """Before the devices of the command line are looked for; in xdist's workers too."""
    if not is_there() and library().exists():
        register(library())


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main() -> int | None:
    if is_there():
        return None
    reason = why_not() or "build it with python -m tests.second_device.build"
    sys.stdout.write(f"nothing was run on a second device: {reason}\n")
    return pytest.ExitCode.TESTS_FAILED if os.environ.get(REQUIRED) else pytest.ExitCode.OK


def _index(device: Any = None) -> int:
    if device is None:
        return int(torch.ops.second_device.current())
    if isinstance(device, int):
        return device
    index = torch.device(device).index
    return _index() if index is None else index


class device:  # noqa: N801 (torch's own name for it: torch.cuda.device)
    """Makes an index the current one in a ``with`` block."""

    def __init__(self, device: Any) -> None:
        self.index = _index(device)
        self.before = -1

    def __enter__(self) -> None:
        self.before = torch.ops.second_device.select(self.index)

    def __exit__(self, *_: object) -> None:
        torch.ops.second_device.select(self.before)


def register(library: Path) -> None:
    """Load the library and give its device a name and a module, as torch documents it."""
    torch.ops.load_library(str(library))
    ops = torch.ops.second_device
    torch.utils.rename_privateuse1_backend(NAME)

    def get_rng_state(device: Any = NAME) -> torch.Tensor:
        return ops.rng_state(_index(device))

    def set_rng_state(new_state: torch.Tensor, device: Any = NAME) -> None:
        ops.set_rng_state(_index(device), new_state)

    def manual_seed(seed: int) -> None:
        ops.seed(_index(), seed)

    def manual_seed_all(seed: int) -> None:
        for index in range(ops.count()):
            ops.seed(index, seed)

    module: Any = types.ModuleType(f"torch.{NAME}")
    module.is_available = module.is_initialized = lambda: True
    module._is_in_bad_fork = lambda: False
    module.device_count = lambda: int(ops.count())
    module.current_device = _index
    module.set_device = lambda device: ops.select(_index(device))
    module.synchronize = lambda device=None: None
    module.device = device
    module.get_rng_state, module.set_rng_state = get_rng_state, set_rng_state
    module.manual_seed, module.manual_seed_all = manual_seed, manual_seed_all
    module.initial_seed = lambda: int(ops.initial_seed(_index()))
    module.get_amp_supported_dtype = lambda: [torch.float16, torch.bfloat16]
    module.transfers = lambda device=None: int(ops.transfers(_index(device)))
    torch._register_device_module(NAME, module)
    torch.utils.generate_methods_for_privateuse1_backend()

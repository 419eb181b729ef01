"""The fixtures: each assertion under its own name, and the device and dtype of the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from ..catalogue import ASSERTIONS, PUBLIC
from .devices import Variant
from .marker import SHOWN, VARIANT, first_variant, variant_of
from .session import session_of

if TYPE_CHECKING:
    import torch


@pytest.fixture(scope="session", name=VARIANT)
def _param_variant(request: pytest.FixtureRequest) -> Variant:
    """The variant of the test, or the first chosen one for an unmarked test."""
    if hasattr(request, "param"):
        variant = request.param
        if isinstance(variant, Variant):
            return variant
    first = first_variant(request.config)
    if reason := session_of(request.config).machine.absent(first.device, first.dtype):
        pytest.skip(reason)
    return first


@pytest.fixture(name=SHOWN)
def _param_shown() -> None:
    """Nothing: its parameter gives a marked test its id."""


@pytest.fixture(scope="session")
def param_device(_param_variant: Variant, pytestconfig: pytest.Config) -> torch.device:
    """The device this test runs on (the first chosen one in an unmarked test)."""
    return session_of(pytestconfig).machine.device(_param_variant.device)


@pytest.fixture(scope="session")
def param_dtype(_param_variant: Variant) -> torch.dtype:
    """The default dtype this test runs with (torch's own where none was chosen)."""
    import torch

    dtype: torch.dtype = (
        getattr(torch, _param_variant.dtype) if _param_variant.dtype else torch.get_default_dtype()
    )
    return dtype


def _assertion_fixture(name: str) -> Callable[..., Any]:
    def assertion() -> Any:
        import pytest_paramcheck

        return getattr(pytest_paramcheck, name)

    assertion.__name__ = name
    assertion.__doc__ = PUBLIC[name].summary
    return pytest.fixture(scope="session", name=name)(assertion)


# One session-scoped fixture per assertion, the function itself, so that fixtures of any scope can
# use it. Made from the catalogue: ``pytest --fixtures`` describes each without importing torch.
globals().update(
    {name: _assertion_fixture(name) for name in ASSERTIONS if name != "assert_manifest"}
)


@pytest.fixture
def assert_manifest(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Assert that a model's parameters are those of the committed manifest."""
    # Function-scoped, unlike the others: the manifest lies beside the test that asks.
    manifests = session_of(request.config).manifests
    return manifests.bind(request.node, variant_of(request.node))

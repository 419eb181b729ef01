"""The fixtures: each assertion under its own name, and the device and dtype of the test.

The fixture of an assertion gives the function itself, which is loaded when a test asks for it
(and torch with it). Session-scoped, so that fixtures of any scope can use it.

Tests: ``tests/integration/test_environment.py``, ``test_devices.py``, ``test_reporting.py`` and
``test_misuse.py``.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs
# The return types of the fixtures are left to be inferred: there is no way to write "the type of
# that function", and editors infer what a fixture returns. mypy infers no return types, except a
# lambda's: hence ``typed``.

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

import pytest

import pytest_paramcheck as public

from .devices import Variant
from .marked import SHOWN, VARIANT, first_variant, variant_of
from .session import session_of

if TYPE_CHECKING:
    import torch

F = TypeVar("F")


def typed(load: Callable[[], F]) -> Callable[[object], Callable[[], F]]:
    """Let type checkers see a fixture as a function that returns what ``load`` returns."""
    del load  # never called
    return lambda fixture: cast("Callable[[], F]", fixture)


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


@typed(lambda: public.assert_tied)
@pytest.fixture(scope="session")
def assert_tied():
    """Assert that parameters are one and the same object."""
    return public.assert_tied


@typed(lambda: public.assert_untied)
@pytest.fixture(scope="session")
def assert_untied():
    """Assert that no two tensors share any memory, buffers included."""
    return public.assert_untied


@typed(lambda: public.assert_distinct)
@pytest.fixture(scope="session")
def assert_distinct():
    """Assert that parameters have memory of their own and other values."""
    return public.assert_distinct


@typed(lambda: public.assert_ties)
@pytest.fixture(scope="session")
def assert_ties():
    """Assert exactly these tie groups: nothing missing, nothing more."""
    return public.assert_ties


@typed(lambda: public.assert_same_ties)
@pytest.fixture(scope="session")
def assert_same_ties():
    """Assert that two subjects share the same names in the same way."""
    return public.assert_same_ties


@typed(lambda: public.assert_ties_survive)
@pytest.fixture(scope="session")
def assert_ties_survive():
    """Assert that every tie group survives what is done to a model."""
    return public.assert_ties_survive


@typed(lambda: public.assert_grads_none)
@pytest.fixture(scope="session")
def assert_grads_none():
    """Assert that no parameter has a gradient yet."""
    return public.assert_grads_none


@typed(lambda: public.assert_grads_present)
@pytest.fixture(scope="session")
def assert_grads_present():
    """Assert that each trainable parameter has a nonzero gradient."""
    return public.assert_grads_present


@typed(lambda: public.assert_grads_finite)
@pytest.fixture(scope="session")
def assert_grads_finite():
    """Assert that no gradient holds a NaN or an infinity."""
    return public.assert_grads_finite


@typed(lambda: public.assert_grad_norm)
@pytest.fixture(scope="session")
def assert_grad_norm():
    """Assert that the total norm of the gradients is within bounds."""
    return public.assert_grad_norm


@typed(lambda: public.assert_grads_reach)
@pytest.fixture(scope="session")
def assert_grads_reach():
    """Assert that a loss's gradient reaches each trainable parameter."""
    return public.assert_grads_reach


@typed(lambda: public.assert_tied_grads_sum)
@pytest.fixture(scope="session")
def assert_tied_grads_sum():
    """Assert that a tied parameter's gradient is the sum over its uses."""
    return public.assert_tied_grads_sum


@typed(lambda: public.assert_frozen)
@pytest.fixture(scope="session")
def assert_frozen():
    """Assert that parameters are frozen: no gradient is computed for them."""
    return public.assert_frozen


@typed(lambda: public.assert_trainable)
@pytest.fixture(scope="session")
def assert_trainable():
    """Assert that parameters are trainable: a gradient can reach and move them."""
    return public.assert_trainable


@typed(lambda: public.assert_unchanged)
@pytest.fixture(scope="session")
def assert_unchanged():
    """Assert that a ``with`` block leaves parameters and buffers as they are."""
    return public.assert_unchanged


@typed(lambda: public.assert_changed)
@pytest.fixture(scope="session")
def assert_changed():
    """Assert that a ``with`` block changes each parameter, by whatever means."""
    return public.assert_changed


@typed(lambda: public.assert_updated)
@pytest.fixture(scope="session")
def assert_updated():
    """Assert that a ``with`` block moves each parameter, because of a gradient."""
    return public.assert_updated


@typed(lambda: public.assert_averaged)
@pytest.fixture(scope="session")
def assert_averaged():
    """Assert that a ``with`` block updates a running average of a model once."""
    return public.assert_averaged


@typed(lambda: public.assert_optimizer_covers)
@pytest.fixture(scope="session")
def assert_optimizer_covers():
    """Assert that an optimizer holds every trainable parameter exactly once."""
    return public.assert_optimizer_covers


@typed(lambda: public.assert_optimizer_state)
@pytest.fixture(scope="session")
def assert_optimizer_state():
    """Assert that each parameter has an optimizer state that fits and is its own."""
    return public.assert_optimizer_state


@typed(lambda: public.assert_param_groups)
@pytest.fixture(scope="session")
def assert_param_groups():
    """Assert the hyperparameters that each parameter gets from its optimizer."""
    return public.assert_param_groups


@typed(lambda: public.assert_shapes)
@pytest.fixture(scope="session")
def assert_shapes():
    """Assert the shapes of parameters and buffers, sizes or symbols."""
    return public.assert_shapes


@typed(lambda: public.assert_dtypes)
@pytest.fixture(scope="session")
def assert_dtypes():
    """Assert the dtypes of parameters and buffers, plain attributes included."""
    return public.assert_dtypes


@typed(lambda: public.assert_devices)
@pytest.fixture(scope="session")
def assert_devices():
    """Assert the devices of parameters and buffers, plain attributes included."""
    return public.assert_devices


@typed(lambda: public.assert_param_count)
@pytest.fixture(scope="session")
def assert_param_count():
    """Assert how many elements all parameters, or the trainable ones, have."""
    return public.assert_param_count


@typed(lambda: public.assert_materialized)
@pytest.fixture(scope="session")
def assert_materialized():
    """Assert that nothing is lazy, fake or on meta any more."""
    return public.assert_materialized


@typed(lambda: public.assert_registered)
@pytest.fixture(scope="session")
def assert_registered():
    """Assert that no parameter or module hides from ``parameters()``."""
    return public.assert_registered


@typed(lambda: public.assert_finite)
@pytest.fixture(scope="session")
def assert_finite():
    """Assert that no parameter holds a NaN or an infinity."""
    return public.assert_finite


@typed(lambda: public.assert_same_values)
@pytest.fixture(scope="session")
def assert_same_values():
    """Assert that two subjects hold the same values under the same names."""
    return public.assert_same_values


@typed(lambda: public.assert_values)
@pytest.fixture(scope="session")
def assert_values():
    """Assert that values satisfy conditions: a range, a norm, zeros in a mask."""
    return public.assert_values


@typed(lambda: public.assert_init)
@pytest.fixture(scope="session")
def assert_init():
    """Assert that parameters were drawn from the distributions they should be."""
    return public.assert_init


@typed(lambda: public.assert_init_complete)
@pytest.fixture(scope="session")
def assert_init_complete():
    """Assert that a factory initializes every parameter and buffer."""
    return public.assert_init_complete


@typed(lambda: public.assert_roundtrip)
@pytest.fixture(scope="session")
def assert_roundtrip():
    """Assert that a model survives being saved and loaded."""
    return public.assert_roundtrip


@typed(lambda: public.assert_loaded)
@pytest.fixture(scope="session")
def assert_loaded():
    """Assert that a checkpoint is in the model, all of it, and nothing else."""
    return public.assert_loaded


@typed(lambda: public.assert_checkpoint)
@pytest.fixture(scope="session")
def assert_checkpoint():
    """Assert that a checkpoint is whole, finite and no larger than its tensors."""
    return public.assert_checkpoint


@typed(lambda: public.assert_replicated)
@pytest.fixture(scope="session")
def assert_replicated():
    """Assert that parameters and buffers are the same on every rank."""
    return public.assert_replicated


@typed(lambda: public.assert_placements)
@pytest.fixture(scope="session")
def assert_placements():
    """Assert how parameters are sharded: the placement of each DTensor."""
    return public.assert_placements


@typed(lambda: public.assert_resumes)
@pytest.fixture(scope="session")
def assert_resumes():
    """Assert that training goes on from a save as if it had not been interrupted."""
    return public.assert_resumes


@typed(lambda: public.assert_manifest)
@pytest.fixture
def assert_manifest(request: pytest.FixtureRequest):
    """Assert that a model's parameters are those of the committed manifest."""
    # Function-scoped, unlike the others: the manifest lies beside the test that asks.
    manifests = session_of(request.config).manifests
    return manifests.bind(request.node, variant_of(request.node))

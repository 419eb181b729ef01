"""Assert what must hold of a PyTorch model's parameters, in pytest, a script or a notebook.

Public are the names in ``__all__``, the modules ``init`` and ``values``, and names and signatures
of the hooks in ``plugin/hookspecs.py``. Everything else is private, whatever its name looks like.

A public name is loaded on first use (PEP 562): importing this package imports neither torch nor
pytest, so that a test run without a model test does not pay for them.

The rooms, from the ground up; each imports from those above it in this list:

* ``messages/``: what is said: findings, the two errors, and their text;
* ``parameters/``: reading a model, a state_dict or an optimizer; it knows no expectation;
* ``manifest/``: the committed file: its text, and where it lies;
* ``init.py``, ``values.py``: the distributions and the conditions that ``assert_init`` and
  ``assert_values`` take;
* ``checks/``: what was read + what is expected -> findings;
* ``assertions/``: the public functions: read, check, raise;
* ``model_checks/``: ``ModelCase``, and the checks that follow from it;
* ``showing/``: tables and pages of a model's parameters;
* ``plugin/``: everything that speaks to pytest; no other room imports it;
* ``__main__.py``: ``python -m pytest_paramcheck``, without pytest.

PYTEST_DONT_REWRITE: there is no ``assert`` in the package, and whoever imports it before pytest
loads the plugin would be warned that it is too late to rewrite them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers; a test holds them to _MODULE_OF
    from . import init as init
    from . import values as values
    from .assertions.averaged import assert_averaged as assert_averaged
    from .assertions.blocks import assert_changed as assert_changed
    from .assertions.blocks import assert_unchanged as assert_unchanged
    from .assertions.blocks import assert_updated as assert_updated
    from .assertions.checkpoints import assert_checkpoint as assert_checkpoint
    from .assertions.checkpoints import assert_loaded as assert_loaded
    from .assertions.checkpoints import assert_roundtrip as assert_roundtrip
    from .assertions.flags import assert_frozen as assert_frozen
    from .assertions.flags import assert_trainable as assert_trainable
    from .assertions.gradients import assert_grad_norm as assert_grad_norm
    from .assertions.gradients import assert_grads_finite as assert_grads_finite
    from .assertions.gradients import assert_grads_none as assert_grads_none
    from .assertions.gradients import assert_grads_present as assert_grads_present
    from .assertions.init import assert_init as assert_init
    from .assertions.init import assert_init_complete as assert_init_complete
    from .assertions.manifests import assert_manifest as assert_manifest
    from .assertions.optimizer import assert_optimizer_covers as assert_optimizer_covers
    from .assertions.optimizer import assert_optimizer_state as assert_optimizer_state
    from .assertions.optimizer import assert_param_groups as assert_param_groups
    from .assertions.reach import assert_grads_reach as assert_grads_reach
    from .assertions.reach import assert_tied_grads_sum as assert_tied_grads_sum
    from .assertions.registered import assert_registered as assert_registered
    from .assertions.resumes import assert_resumes as assert_resumes
    from .assertions.sharding import assert_placements as assert_placements
    from .assertions.sharding import assert_replicated as assert_replicated
    from .assertions.structure import assert_devices as assert_devices
    from .assertions.structure import assert_dtypes as assert_dtypes
    from .assertions.structure import assert_materialized as assert_materialized
    from .assertions.structure import assert_param_count as assert_param_count
    from .assertions.structure import assert_shapes as assert_shapes
    from .assertions.ties import assert_distinct as assert_distinct
    from .assertions.ties import assert_same_ties as assert_same_ties
    from .assertions.ties import assert_tied as assert_tied
    from .assertions.ties import assert_ties as assert_ties
    from .assertions.ties import assert_ties_survive as assert_ties_survive
    from .assertions.ties import assert_untied as assert_untied
    from .assertions.values import assert_finite as assert_finite
    from .assertions.values import assert_same_values as assert_same_values
    from .assertions.values import assert_values as assert_values
    from .checks.shapes import ShapeSpec as ShapeSpec
    from .messages.errors import ParamCheckError as ParamCheckError
    from .messages.errors import ParamCheckUsageError as ParamCheckUsageError
    from .messages.findings import Finding as Finding
    from .model_checks.case import ModelCase as ModelCase
    from .model_checks.case import NothingToCheck as NothingToCheck
    from .model_checks.registry import CHECKS as CHECKS
    from .model_checks.run import CaseRun as CaseRun
    from .parameters.subject.elements import part as part
    from .parameters.subject.inventory import Subject as Subject
    from .parameters.subject.patterns import Pattern as Pattern
    from .parameters.subject.states import BUFFERS as BUFFERS
    from .parameters.subject.states import FROZEN as FROZEN
    from .parameters.subject.states import PARAMETERS as PARAMETERS
    from .parameters.subject.states import TRAINABLE as TRAINABLE
    from .plugin.marker import ParamCheckWarning as ParamCheckWarning
    from .plugin.model_check import ModelCheck as ModelCheck
    from .plugin.model_items import parametrize_with_param_checks as parametrize_with_param_checks
    from .showing.page import ParamPage as ParamPage
    from .showing.page import param_page as param_page
    from .showing.rows import ParamRow as ParamRow
    from .showing.table import ParamTable as ParamTable
    from .showing.table import param_table as param_table

#: Public name -> the module that has it.
_MODULE_OF = {
    "init": "init",
    "values": "values",
    "assert_averaged": "assertions.averaged",
    "assert_changed": "assertions.blocks",
    "assert_unchanged": "assertions.blocks",
    "assert_updated": "assertions.blocks",
    "assert_checkpoint": "assertions.checkpoints",
    "assert_loaded": "assertions.checkpoints",
    "assert_roundtrip": "assertions.checkpoints",
    "assert_frozen": "assertions.flags",
    "assert_trainable": "assertions.flags",
    "assert_grad_norm": "assertions.gradients",
    "assert_grads_finite": "assertions.gradients",
    "assert_grads_none": "assertions.gradients",
    "assert_grads_present": "assertions.gradients",
    "assert_init": "assertions.init",
    "assert_init_complete": "assertions.init",
    "assert_manifest": "assertions.manifests",
    "assert_optimizer_covers": "assertions.optimizer",
    "assert_optimizer_state": "assertions.optimizer",
    "assert_param_groups": "assertions.optimizer",
    "assert_grads_reach": "assertions.reach",
    "assert_tied_grads_sum": "assertions.reach",
    "assert_registered": "assertions.registered",
    "assert_resumes": "assertions.resumes",
    "assert_placements": "assertions.sharding",
    "assert_replicated": "assertions.sharding",
    "assert_devices": "assertions.structure",
    "assert_dtypes": "assertions.structure",
    "assert_materialized": "assertions.structure",
    "assert_param_count": "assertions.structure",
    "assert_shapes": "assertions.structure",
    "assert_distinct": "assertions.ties",
    "assert_same_ties": "assertions.ties",
    "assert_tied": "assertions.ties",
    "assert_ties": "assertions.ties",
    "assert_ties_survive": "assertions.ties",
    "assert_untied": "assertions.ties",
    "assert_finite": "assertions.values",
    "assert_same_values": "assertions.values",
    "assert_values": "assertions.values",
    "ShapeSpec": "checks.shapes",
    "ParamCheckError": "messages.errors",
    "ParamCheckUsageError": "messages.errors",
    "Finding": "messages.findings",
    "ModelCase": "model_checks.case",
    "NothingToCheck": "model_checks.case",
    "CHECKS": "model_checks.registry",
    "CaseRun": "model_checks.run",
    "part": "parameters.subject.elements",
    "Subject": "parameters.subject.inventory",
    "Pattern": "parameters.subject.patterns",
    "BUFFERS": "parameters.subject.states",
    "FROZEN": "parameters.subject.states",
    "PARAMETERS": "parameters.subject.states",
    "TRAINABLE": "parameters.subject.states",
    "ParamCheckWarning": "plugin.marker",
    "ModelCheck": "plugin.model_check",
    "parametrize_with_param_checks": "plugin.model_items",
    "ParamPage": "showing.page",
    "param_page": "showing.page",
    "ParamRow": "showing.rows",
    "ParamTable": "showing.table",
    "param_table": "showing.table",
}
__version__ = "0.1.0"
__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_MODULE_OF[name]}")
    return module if _MODULE_OF[name] == name else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})

"""The public names: where each one lives and what a reader gets from it. No torch, no pytest.

One table, because three things have to agree: what ``from pytest_paramcheck import name``
loads, which fixtures the plugin offers, and the line ``pytest --fixtures`` shows for each
without importing torch. A test holds every summary to the first line of its docstring.
"""

from __future__ import annotations

from typing import NamedTuple


class Public(NamedTuple):
    """Where a public name is defined, and the first line of its docstring."""

    module: str
    summary: str


PUBLIC: dict[str, Public] = {
    # what is raised
    "Finding": Public("messages.findings", "One thing that does not hold of a subject."),
    "ParamCheckError": Public(
        "messages.errors",
        "An invariant that does not hold; ``findings`` lists everything that was found.",
    ),
    "ParamCheckUsageError": Public(
        "messages.errors",
        "A wrong call: an unknown name, a pattern without a match, an empty subject.",
    ),
    # ties
    "assert_tied": Public("assertions.ties", "Assert that parameters are one and the same object."),
    "assert_untied": Public(
        "assertions.ties", "Assert that nothing shares memory: no cell in common, buffers included."
    ),
    "assert_distinct": Public(
        "assertions.ties", "Assert that parameters have memory of their own and other values."
    ),
    "assert_ties": Public(
        "assertions.ties", "Assert exactly these tie groups: nothing missing, nothing more."
    ),
    "assert_same_ties": Public(
        "assertions.ties", "Assert that two subjects share the same names in the same way."
    ),
    "assert_ties_survive": Public(
        "assertions.ties", "Assert that every tie group survives what is done to a model."
    ),
    # gradients
    "assert_grads_none": Public(
        "assertions.gradients", "Assert that no parameter has a gradient yet."
    ),
    "assert_grads_present": Public(
        "assertions.gradients", "Assert that each trainable parameter has a gradient with a signal."
    ),
    "assert_grads_finite": Public(
        "assertions.gradients", "Assert that no gradient holds a NaN or an infinity."
    ),
    "assert_grad_norm": Public(
        "assertions.gradients", "Assert that the total norm of the gradients is within bounds."
    ),
    "assert_grads_reach": Public(
        "assertions.reach", "Assert that a loss's gradient reaches each trainable parameter."
    ),
    "assert_tied_grads_sum": Public(
        "assertions.reach", "Assert that a tied parameter's gradient is the sum of its uses'."
    ),
    # training
    "assert_frozen": Public(
        "assertions.flags",
        "Assert that parameters are frozen: no gradient is computed for them.",
    ),
    "assert_trainable": Public(
        "assertions.flags",
        "Assert that parameters are trainable: a gradient can reach and move them.",
    ),
    "assert_unchanged": Public(
        "assertions.blocks",
        "Assert that a ``with`` block leaves parameters and buffers as they are.",
    ),
    "assert_changed": Public(
        "assertions.blocks",
        "Assert that a ``with`` block changes each parameter, by whatever means.",
    ),
    "assert_updated": Public(
        "assertions.blocks",
        "Assert that a ``with`` block moves each parameter, because of a gradient.",
    ),
    "assert_optimizer_covers": Public(
        "assertions.optimizer",
        "Assert that an optimizer holds every trainable parameter exactly once.",
    ),
    "assert_optimizer_state": Public(
        "assertions.optimizer",
        "Assert that each parameter has an optimizer state that fits and is its own.",
    ),
    "assert_param_groups": Public(
        "assertions.optimizer",
        "Assert the hyperparameters that each parameter gets from its optimizer.",
    ),
    # structure
    "assert_shapes": Public(
        "assertions.structure", "Assert the shapes of parameters and buffers, sizes or symbols."
    ),
    "assert_dtypes": Public(
        "assertions.structure",
        "Assert the dtypes of parameters and buffers, plain attributes included.",
    ),
    "assert_devices": Public(
        "assertions.structure",
        "Assert the devices of parameters and buffers, plain attributes included.",
    ),
    "assert_param_count": Public(
        "assertions.structure",
        "Assert how many elements all parameters, or the trainable ones, have.",
    ),
    "assert_materialized": Public(
        "assertions.structure", "Assert that nothing is lazy, fake or on meta any more."
    ),
    "assert_registered": Public(
        "assertions.registered", "Assert that no parameter or module hides from ``parameters()``."
    ),
    "param_table": Public("showing.table", "Return a readable table of a model's parameters."),
    # values
    "assert_finite": Public(
        "assertions.values", "Assert that no parameter holds a NaN or an infinity."
    ),
    "assert_same_values": Public(
        "assertions.values", "Assert that two subjects hold the same values under the same names."
    ),
    "assert_init": Public(
        "assertions.init",
        "Assert that parameters were drawn from the distributions they should be.",
    ),
    "assert_init_complete": Public(
        "assertions.init", "Assert that a factory initialises every parameter and buffer."
    ),
    "init": Public("init", "Distributions that parameters start from, for ``assert_init``."),
    # checkpoints
    "assert_roundtrip": Public(
        "assertions.checkpoints", "Assert that a model survives being saved and loaded."
    ),
    "assert_loaded": Public(
        "assertions.checkpoints",
        "Assert that a checkpoint is in the model, all of it, and nothing else.",
    ),
    "assert_manifest": Public(
        "assertions.manifests",
        "Assert that a model's parameters are those of the committed manifest.",
    ),
    # whole models
    "ModelCase": Public(
        "model_checks.case",
        "A model declared once; every invariant that applies becomes a named test item.",
    ),
    "NothingToCheck": Public(
        "model_checks.case",
        "Raised by a check that has nothing to look at: its item is skipped with the reason.",
    ),
    "parametrize_with_param_checks": Public(
        "plugin.model_items",
        "Parametrize a test with one ``check`` per model case and check that applies.",
    ),
    "CHECKS": Public(
        "model_checks.registry", "Every registered check, in the order in which they are collected."
    ),
}

#: The assertions: each is also a fixture of the same name.
ASSERTIONS: tuple[str, ...] = tuple(name for name in PUBLIC if name.startswith("assert_"))

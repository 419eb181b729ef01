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
    "Finding": Public("findings", "One thing that does not hold of a subject."),
    "ParamCheckError": Public(
        "findings", "An invariant that does not hold; ``findings`` lists everything that was found."
    ),
    "ParamCheckUsageError": Public(
        "findings", "A wrong call: an unknown name, a pattern without a match, an empty subject."
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
    # training
    "assert_frozen": Public(
        "assertions.training",
        "Assert that parameters are frozen: no gradient is computed for them.",
    ),
    "assert_trainable": Public(
        "assertions.training",
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
    # values
    "assert_finite": Public(
        "assertions.values", "Assert that no parameter holds a NaN or an infinity."
    ),
}

#: The assertions: each is also a fixture of the same name.
ASSERTIONS: tuple[str, ...] = tuple(name for name in PUBLIC if name.startswith("assert_"))

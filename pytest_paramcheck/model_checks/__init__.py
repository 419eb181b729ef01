"""Whole-model checks: a model is declared once, and every invariant that applies is checked.

``case.py``: :class:`ModelCase`, what a user declares. ``run.py``: :class:`CaseRun`, the case on
one device, which a check gets; ``outputs.py``: what its forward returned.
``check.py``: what a check is, and how one is run.
``as_built.py``, ``running.py``, ``copies.py``: the checks of a model as its factory builds it,
when it runs, and when it is copied or saved. ``moves.py``: moved to a dtype or
a device. ``wrapped.py``: wrapped or sharded, on ranks; ``parts.py``: inputs, and each rank's.
``conventions.py``: what its modules promise by what they are. ``builds.py``: builds that
checks share. ``needs.py``: what a check needs to have something to look at.
``inputs.py``: whose inputs a model is run on; ``libraries.py``: what the
libraries of models say of them; ``missed.py``: what a loss does not reach;
``left_out.py``: and what of that is for want of inputs; ``alike.py``: what
starts equal; ``in_bounds.py``: parameters that each forward brings back;
``steps.py``: backward passes and steps, asked again; ``routes.py``: what a run
leaves out by chance; ``stand_ins.py``: the optimizers of a case without any;
``seeds.py``: what of a model follows the seed;
``kept_graphs.py``: what a constructor computed and kept.
``resume.py``: training that goes on from a checkpoint.
``registry.py``: all checks in their order, ``CHECKS``.

``named.py``: what ``module:factory`` on a command line names; ``measured.py``: what a case would
declare; ``declaration.py``: the test file that says so.

A check raises what an assertion raises, or :class:`NothingToCheck` with the reason, which skips
its item. ``case.model`` is shared by all checks and changed by none.
"""

"""Whole-model checks: a model is declared once, and every invariant that applies is checked.

``case.py``: :class:`ModelCase`, what a user declares. ``run.py``: :class:`CaseRun`, the case on
one device, which a check gets. ``check.py``: what a check is, and how one is run.
``as_built.py``, ``running.py``, ``copies.py``: the checks of a model as its factory builds it,
when it runs, and when it is copied, moved or saved. ``needs.py``: what a check needs to have
something to look at. ``steps.py``: backward passes and steps, asked again; ``stand_ins.py``: the
optimizers of a case without any; ``seeds.py``: what of a model follows the seed;
``kept_graphs.py``: what a constructor computed and kept.
``resume.py``: training that goes on from a checkpoint.
``registry.py``: all checks in their order, ``CHECKS``.

A check raises what an assertion raises, or :class:`NothingToCheck` with the reason, which skips
its item. ``case.model`` is shared by all checks and changed by none.
"""

"""Builds that checks share: what one only looked at, the next may change.

``CaseRun.build()`` always runs the factory: a check may watch what it does.
"""

from __future__ import annotations

from torch import nn

from .run import CaseRun


def another(run: CaseRun) -> nn.Module:
    """Return a second instance, to look at and not to change."""
    __tracebackhide__ = True
    if run._another is None:
        run._another = run.build()
    return run._another


def fresh(run: CaseRun) -> nn.Module:
    """Return an instance to change at will: the one that was only looked at, where there is one."""
    __tracebackhide__ = True
    looked_at, run._another = run._another, None
    return run.build() if looked_at is None else looked_at

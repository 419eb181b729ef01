"""What the plugin keeps for one session: the single object it puts into ``config.stash``."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import pytest

from .devices import Machine, Variant
from .fixture_scopes import FixtureScopes
from .manifests import ManifestRun
from .options import Settings

if TYPE_CHECKING:
    from ..model_checks.run import LatestRun
    from .environment import Running


@dataclass(eq=False)
class ParamSession:
    """``variants`` holds each variant once; ``running`` and ``nodeid`` are those of the test
    that runs now (``running`` is None where it is not marked)."""

    machine: Machine
    settings: Settings
    fixture_scopes: FixtureScopes
    manifests: ManifestRun
    variants: dict[Variant, Variant] = field(default_factory=dict)
    running: Running | None = None
    nodeid: str = ""

    @cached_property
    def latest(self) -> LatestRun:
        """The case run that is kept alive. Made when it is asked for: most runs have no cases."""
        from ..model_checks.run import LatestRun

        return LatestRun()


_SESSION = pytest.StashKey[ParamSession]()


def keep_session(config: pytest.Config, session: ParamSession) -> None:
    """Keep a session for the hooks and fixtures to come."""
    config.stash[_SESSION] = session


def session_of(config: pytest.Config) -> ParamSession:
    """Return what was kept when the session started."""
    return config.stash[_SESSION]

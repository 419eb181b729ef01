"""What the plugin keeps for one session: the single object it puts into ``config.stash``."""

from __future__ import annotations

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


class ParamSession:
    """What is known from the start, and what hooks and fixtures note for one another."""

    # No dataclass: making one takes half a millisecond of every pytest start.
    def __init__(
        self,
        machine: Machine,
        settings: Settings,
        fixture_scopes: FixtureScopes,
        manifests: ManifestRun,
    ) -> None:
        self.machine = machine
        self.settings = settings
        self.fixture_scopes = fixture_scopes
        self.manifests = manifests
        #: Each variant once, under itself.
        self.variants: dict[Variant, Variant] = {}
        #: Whether it was said that a marker of our name means something else.
        self.warned_of_foreign = False
        #: Of the test that runs now; None where it is not marked.
        self.running: Running | None = None
        #: Of the test that runs now.
        self.nodeid = ""
        #: Whether tests that have ranks run in other processes than this one.
        self.ranks_elsewhere = True

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

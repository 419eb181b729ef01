"""What the plugin keeps for one session: the single object it puts into ``config.stash``.

With it what it learns on the way: which wider-scoped fixtures are built for a device.

Tests: ``tests/integration/test_environment.py`` and ``test_devices.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

import pytest

from .devices import Machine, Variant
from .manifests import ManifestRun
from .options import Settings

if TYPE_CHECKING:
    from ..model_checks.run import LatestRun
    from .environment import Running


class FixtureScopes:
    """Remembers which fixtures request ``param_device``, directly or through other fixtures.

    Fixtures of one name in two places are two fixtures: as in pytest, a request means the
    closest one to the test. A fixture is set up after those it requests, so they are known.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._ours = frozenset(names)
        self._known: dict[str, dict[str, bool]] = {name: {"": True} for name in names}

    def learn(self, name: str, place: str, requested: Iterable[str], nodeid: str) -> bool:
        """Note a fixture being set up for a test, and return whether it is bound to a device.

        ``place`` is the node id it is visible below (``""``: everywhere).
        """
        if name in self._ours and place == "":
            return True
        bound = any(
            self._closest(other, nodeid, overrider=place if other == name else None)
            for other in requested
        )
        self._known.setdefault(name, {})[place] = bound
        return bound

    def _closest(self, name: str, nodeid: str, overrider: str | None) -> bool:
        places = self._known.get(name, {})
        # A fixture that overrides another of its own name requests the next one further out.
        seen = [place for place in places if _holds(place, nodeid) and place != overrider]
        return places[max(seen, key=len)] if seen else False


def _holds(place: str, nodeid: str) -> bool:
    return place in ("", ".", nodeid) or nodeid.startswith((place + "/", place + "::"))


class ParamSession:
    """What is known from the start, and what hooks and fixtures note for one another."""

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

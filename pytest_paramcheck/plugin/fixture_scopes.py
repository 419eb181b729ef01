"""Which wider-scoped fixtures are built for a device.

Tests: ``tests/integration/test_environment.py`` and ``test_devices.py``.
"""

from __future__ import annotations

from collections.abc import Iterable


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

"""The manifests of one pytest run: the fixture's function, what was written, what is stale.

Where files lie and what they hold is decided in ``manifest.py``; this follows the run: which
test files ran to their end, and what xdist's workers visited. No torch, no pytest.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..messages.wording import plural

if TYPE_CHECKING:
    from ..manifest.paths import ManifestSession

OUTPUT = "paramcheck_manifests"
#: The folder of the manifests, beside the test file.
FOLDER = "__params__"


class ManifestRun:
    """Registered as a plugin; silent in a run that has no manifests."""

    def __init__(self, root: Path, *, update: bool, selected: Callable[[], bool]) -> None:
        self._root = root
        self._update = update
        self._selected = selected
        self._kept: ManifestSession | None = None
        self._finished: dict[str, bool] = {}
        self._stale: list[Path] = []

    @property
    def _session(self) -> ManifestSession:
        # Loaded by the first test that has a manifest: most runs have none.
        if self._kept is None:
            from ..manifest.paths import ManifestSession

            self._kept = ManifestSession()
        return self._kept

    def bind(self, item: Any, variant: Any) -> Callable[..., None]:
        """Return ``assert_manifest`` for a test: its own file, whatever device it runs on."""
        from ..manifest.paths import manifest_request

        cls = getattr(item, "cls", None)
        request = manifest_request(
            item.path,
            cls.__qualname__ if cls is not None else None,
            getattr(item, "originalname", None) or item.name,
            _id_without_device(item, variant),
            update=self._update,
        )
        return self._session.bind(request)

    def output(self) -> dict[str, list[str]]:
        """Return what a worker sends home."""
        if self._kept is None:
            return {}
        return {"visited": self._kept.visited, "written": self._kept.written}

    def merge(self, output: dict[str, list[str]]) -> None:
        """Take in what a worker sent home."""
        if output:
            self._session.merge(output["visited"], output["written"])

    def pytest_runtest_logreport(self, report: Any) -> None:
        file = report.nodeid.partition("::")[0]
        # A test that was skipped, or failed and perhaps before it asked, says nothing about
        # what is stale.
        self._finished[file] = self._finished.get(file, True) and report.passed

    def pytest_sessionfinish(self, session: Any) -> None:
        if session.shouldstop or session.shouldfail or self._selected():
            return
        done = [self._root / file for file, passed in self._finished.items() if passed]
        files = [file for file in done if (file.parent / FOLDER).is_dir() and file.is_file()]
        if files:
            from ..manifest.paths import stale_files

            self._stale = stale_files(files, self._session.visited)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for verb, files in (
            ("wrote", [Path(path) for path in self.output().get("written", ())]),
            ("no test asked for", self._stale),
        ):
            if files:
                remedy = "" if verb == "wrote" else "; delete what is stale"
                terminalreporter.write_line(
                    f"paramcheck: {verb} {plural(len(files), 'manifest')}{remedy}:"
                )
                for path in files:
                    terminalreporter.write_line(f"  {_shown(path, self._root)}")


def _id_without_device(item: Any, variant: Any) -> str | None:
    """Return the part of a test id that the device has no share in; None for nothing."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return None
    whole = str(callspec.id)
    if variant is None:
        return whole or None
    rest = whole.removeprefix(variant.id).lstrip("-")
    return "-".join(part for part in (variant.dtype, rest) if part) or None


def _shown(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return str(path)

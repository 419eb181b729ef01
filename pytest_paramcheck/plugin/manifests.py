"""The manifests of one pytest run: the fixture's function, what was written, what is stale.

Where files lie and what they hold is decided in ``manifest/``; this follows the run: which
manifests its tests asked for, which test files ran to their end, and what xdist's workers
send home.

Tests: ``tests/integration/test_manifest_life.py`` and ``test_workers.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .devices import DTYPES

if TYPE_CHECKING:
    from ..manifest.paths import ManifestRequest
    from .devices import Variant

OUTPUT = "paramcheck_manifests"

# The files of manifest/ are imported where they are used: with what they need they take nearly as
# long to load as the whole plugin, and most runs have no manifests.


class ManifestRun:
    """Which manifests a run asked for and wrote, and which no test asked for.

    Registered as a plugin; silent in a run that has no manifests. On xdist each worker has one
    and sends home what it saw (:meth:`output`, :meth:`merge`), and which test files it did not
    collect as a whole.
    """

    def __init__(
        self,
        root: Path,
        *,
        update: bool,
        selected: bool,
        dtypes: Sequence[str] = (),
    ) -> None:
        self._root = root
        self._update = update
        self._selected = selected
        self._dtypes = dtypes
        self._visited: dict[str, None] = {}
        self._written: dict[str, None] = {}
        self._owners: dict[str, str] = {}
        self._finished: dict[str, bool] = {}
        self._partial: dict[str, None] = {}
        self._lost = False
        self._stale: list[Path] = []

    @property
    def visited(self) -> list[str]:
        """The files that were asked for, as absolute paths: plain strings for xdist."""
        return list(self._visited)

    @property
    def written(self) -> list[str]:
        """Those of them that were written."""
        return list(self._written)

    def bind(self, item: pytest.Item, variant: Variant | None) -> Callable[..., None]:
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
        return self.bind_request(request)

    def bind_request(self, request: ManifestRequest) -> Callable[..., None]:
        """Return ``assert_manifest`` with path and update filled in.

        A test calls it once without a name, or several times with a name each.
        """
        calls: set[str] = set()

        def assert_manifest(
            model: Any,
            name: str | None = None,
            *,
            path: str | Path | None = None,
            update: bool | None = None,
        ) -> None:
            __tracebackhide__ = True
            from ..assertions.manifests import manifest_at
            from ..manifest.paths import named_path

            update = request.update if update is None else update
            if path is None:
                target = request.path(name)
                self._claim(target, request, name, calls)
                remedy = request.remedy
            else:
                target = named_path(path, name)
                self._visited[str(target.absolute())] = None
                remedy = "assert_manifest(..., update=True)"
            if manifest_at(target, model, update=update, remedy=remedy):
                self._written[str(target.absolute())] = None

        return assert_manifest

    def _claim(
        self, target: Path, request: ManifestRequest, name: str | None, calls: set[str]
    ) -> None:
        """Note that a test asked for a file; refuse two calls that mean one."""
        __tracebackhide__ = True
        from ..messages.errors import ParamCheckUsageError

        key = str(target.absolute())
        if key in calls:
            said = f"a second manifest named {name!r}" if name else "a second manifest without name"
            raise ParamCheckUsageError(
                f"{said} in one test: give each its own, assert_manifest(model, 'encoder')"
            )
        calls.add(key)
        self._visited[key] = None
        # On a file system that ignores case, or where an id holds a dot, two tests could mean
        # one file: each would fail on what the other wrote.
        owner = f"{request.directory / request.stem} {name}"
        if self._owners.setdefault(key.casefold(), owner) != owner:
            raise ParamCheckUsageError(
                f"{target.name}: another test's manifest has this file name, on file systems "
                f"that ignore case at least: rename one of the tests, or give a name"
            )

    def output(self) -> dict[str, list[str]]:
        """Return what a worker sends home."""
        found = {"visited": self.visited, "written": self.written, "partial": [*self._partial]}
        return {name: files for name, files in found.items() if files}

    def merge(self, output: dict[str, list[str]]) -> None:
        """Take in what a worker sent home."""
        self._visited.update(dict.fromkeys(output.get("visited", ())))
        self._written.update(dict.fromkeys(output.get("written", ())))
        self._partial.update(dict.fromkeys(output.get("partial", ())))

    def lose(self) -> None:
        """Note that a worker ended without sending anything home."""
        self._lost = True

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        """Note the files of which some tests are taken out, by whomever and however."""
        collected = [*items]
        result = yield
        left = {*map(id, items)}
        self._partial.update(
            (_file(item.nodeid), None) for item in collected if id(item) not in left
        )
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = _file(report.nodeid)
        # A test that was skipped, or failed and perhaps before it asked, says nothing about
        # what is stale.
        self._finished[file] = self._finished.get(file, True) and report.passed

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """List what may be unused, of files of which all tests ran to their end."""
        from ..manifest import FOLDER

        if hasattr(session.config, "workerinput"):
            return  # the controller knows what the others saw
        if session.shouldstop or session.shouldfail or self._lost or self._selected:
            return
        done = [
            self._root / file
            for file, passed in self._finished.items()
            if passed and file not in self._partial
        ]
        folders = {file.parent for file in done}
        if any((folder / FOLDER).is_dir() for folder in folders):
            from ..manifest.paths import stale_files

            stale = stale_files((file for file in done if file.is_file()), self._visited)
            self._stale = [path for path in stale if not self._is_of_another_dtype(path)]

    def _is_of_another_dtype(self, path: Path) -> bool:
        """Whether a manifest may belong to a run with a dtype that this one did not choose."""
        named = {*path.stem.replace(".", "-").split("-")} & {*DTYPES}
        return not named <= {*self._dtypes} or (bool(self._dtypes) and not named)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._written and not self._stale:
            return
        from ..messages.wording import plural, printable

        wrote = f"wrote {plural(len(self._written), 'manifest')}"
        them = "it" if len(self._stale) == 1 else "them"
        unused = plural(len(self._stale), "unused manifest")
        for said, files in (
            (wrote, [Path(path) for path in self._written]),
            (f"{unused} (delete {them} if no test needs {them})", self._stale),
        ):
            if files:
                terminalreporter.write_line(f"paramcheck: {said}:")
                for path in files:
                    terminalreporter.write_line(f"  {printable(below_root(path, self._root))}")


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def _id_without_device(item: pytest.Item, variant: Variant | None) -> str | None:
    """Return the part of a test id that the device has no share in; None for nothing."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return None
    whole = str(callspec.id)
    if variant is None:
        return whole or None
    rest = whole.removeprefix(variant.id).lstrip("-")
    return "-".join(part for part in (variant.dtype, rest) if part) or None


def below_root(path: Path, root: Path) -> str:
    """Return a path as pytest's summary shows it: below the root directory, or as it is."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return str(path)

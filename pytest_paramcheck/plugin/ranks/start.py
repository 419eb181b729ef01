"""What a rank is started with: everything by which an option, a plugin or a folder reaches a run.

A rank is given the options as they were read and does not read them a second time, as a worker of
xdist. What is no plain data stays at home; what says how a whole run is selected, repeated,
stopped, distributed or written down is this process's own, and a rank has the default of it.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .here import Here

#: Options that a rank has at their default.
_OUR_OWN = frozenset(
    [
        *("file_or_dir", "keyword", "markexpr", "deselect", "lf", "failedfirst", "newfirst"),
        *("stepwise", "stepwise_skip", "stepwise_reset", "cacheclear", "cacheshow"),
        *("maxfail", "usepdb", "usepdb_cls", "trace", "setupshow", "setuponly", "setupplan"),
        *("collectonly", "showfixtures", "show_fixtures_per_test", "durations", "basetemp"),
        *("xmlpath", "junitprefix", "pastebin", "log_file", "resultlog", "debug"),
        # xdist's
        *("dist", "tx", "px", "numprocesses", "maxprocesses", "maxschedchunk", "rsyncdir"),
        *("rsyncignore", "distload", "looponfail", "testrunuid", "worksteal", "loadgroup"),
        # Reports of other plugins, and how often they run a test.
        *("htmlpath", "report_log", "json_report", "json_report_file", "allure_report_dir"),
        *("csv_path", "md_report", "reruns", "reruns_delay", "only_rerun", "count"),
    ]
)
#: While a debugger has the terminal.
DAY = 86400.0
_NOT_IN_A_RANK = ("PYTEST_XDIST_", "PYTEST_CURRENT_TEST", "TORCHELASTIC_")


class Start(NamedTuple):
    """What one rank is started with; plain data."""

    here: Here
    options: dict[str, Any]
    args: Sequence[str]
    #: The files that hold its tests; nothing else is collected.
    files: Sequence[str]
    environment: dict[str, str]
    path: Sequence[str]
    folder_of_run: str
    #: For what the ranks share: stores, traces, temporary folders.
    folder: str
    #: After how many seconds a collective that is not answered fails.
    group_seconds: float
    #: Whether a test that raises takes its process group away: the others wait in this process.
    wakes: bool


class Starts:
    """Makes what each rank of one pool is started with."""

    def __init__(
        self,
        config: pytest.Config,
        ranks: int,
        files: Sequence[str],
        folder: str,
        devices: Sequence[str],
        seconds: float,
        *,
        debugging: bool = False,
    ) -> None:
        #: The limit of one test.
        self.seconds = seconds
        self.folder = folder
        #: Below which places in files are shown.
        self.folder_of_run = config.invocation_params.dir
        self.shown: bool = config.getoption("capture") == "no"
        #: Whether ranks wait for each other between phases: not for one that a debugger holds.
        self.gated = not debugging
        self._ranks = ranks
        self._files = files
        self._devices = devices
        self._options = _options(config)
        self._args = _args(config, {Path(file) for file in files})
        self._port = _free_port()
        self._worker = _worker(config)

    def of(self, rank: int) -> Start:
        """Return what a rank is started with."""
        basetemp = str(Path(self.folder, f"tmp{rank}"))
        return Start(
            Here(rank, self._ranks, tuple(self._devices), self._worker),
            {**self._options, "basetemp": basetemp},
            self._args,
            self._files,
            {**self._kept(), **self.names(rank)},
            [*sys.path],
            str(self.folder_of_run),
            self.folder,
            # Longer than a test may take: where both end at once it is a race who speaks first.
            2 * self.seconds + 30 if self.gated else DAY,
            not self.gated,
        )

    def _kept(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(_NOT_IN_A_RANK)
        }
        kept.setdefault("OMP_NUM_THREADS", "1")
        # Without it gloo asks for the address of the host's name, which need not exist.
        kept.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
        return kept

    def names(self, rank: int) -> dict[str, str]:
        """Return what says in the environment of a process which rank it is."""
        return {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(self._ranks),
            "LOCAL_WORLD_SIZE": str(self._ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self._port),
        }


def _options(config: pytest.Config) -> dict[str, Any]:
    options = {
        name: value
        for name, value in vars(config.option).items()
        if name not in _OUR_OWN and not name.startswith("cov_") and _is_plain(value)
    }
    if hasattr(config.option, "no_cov"):
        options["no_cov"] = True
    options["rootdir"] = str(config.rootpath)
    if config.inipath is not None:
        options["inifilename"] = str(config.inipath)
    # This process writes its own; the ini may name a file as well.
    options["log_file"] = os.devnull
    return options


def _args(config: pytest.Config, files: set[Path]) -> list[str]:
    """Return the arguments: what is read before the options are, and what is collected.

    The same folders as here, so that ids are the same, but whole files: an id that one rank does
    not have would end its session.
    """
    args = [f"--assert={config.getoption('assertmode')}"]
    for plugin in config.getoption("plugins") or []:
        args += ["-p", plugin]
    places = dict.fromkeys(str(arg).partition("[")[0].partition("::")[0] for arg in config.args)
    here = config.invocation_params.dir
    return args + [
        place for place in places if not (here / place).is_file() or (here / place) in files
    ]


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(one) for key, one in value.items())
    return value is None or type(value) in (bool, int, float, str, bytes, type(Path()))


def _worker(config: pytest.Config) -> int:
    name = str(getattr(config, "workerinput", {}).get("workerid", "")).removeprefix("gw")
    return int(name) if name.isdigit() else 0


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])

"""``--param-*`` and the ini -> frozen :class:`Settings`.

The one place that raises :class:`pytest.UsageError`: every error names the value, where it
came from and what would be valid.

Tests: ``tests/integration/test_ini.py``, ``test_misuse.py``, ``test_devices.py`` and
``test_reporting.py``.
"""

from __future__ import annotations

import keyword
import os
import shlex
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import pytest

from .devices import Machine, device_names, dtype_names
from .ranks.here import launched, rank_here

T = TypeVar("T")
#: xdist's workers get the controller's resolved names under these keys.
WORKER_DEVICES = "paramcheck_devices"
#: What parametrize_with_param_checks puts on a test.
CASES = "param_cases"
CASES_LINE = "param_cases(cases): whole-model checks; put there by parametrize_with_param_checks."


#: What can be written in the ini: how pytest describes it, and the types it takes, the one that
#: every pytest since 8.0 knows first.
_INI: dict[str, tuple[str, Sequence[Literal["args", "string", "int"]]]] = {
    "param_devices": ("Devices for tests marked params", ("args", "string")),
    "param_dtypes": ("Default dtypes for tests marked params", ("args", "string")),
    "param_ranks": (
        "Numbers of ranks for tests marked params(ranks=...)",
        ("args", "string", "int"),
    ),
    "param_rank_timeout": ("Seconds for one test on its ranks (60)", ("string", "int")),
    "param_seed": ("Seed that every test marked params starts from", ("string", "int")),
    "param_marker": (
        "Name of the marker params, where a project has another marker of this name",
        ("string",),
    ),
}
#: What an ini that says nothing holds. No number is nothing: a 0 is somebody's mistake.
_NOTHING: tuple[object, ...] = (None, "", [])
#: Markers that mean something to pytest, or to us.
_TAKEN = (
    *("parametrize", "usefixtures", "filterwarnings", "skip", "skipif", "xfail", "tryfirst"),
    *("trylast", CASES),
)


class Settings:
    """What the user chose. Empty ``devices`` or ``dtypes``: nothing was chosen."""

    def __init__(
        self,
        *,
        devices: tuple[str, ...],
        dtypes: tuple[str, ...],
        asked: bool,
        ranks: tuple[int, ...],
        asked_ranks: bool,
        seed: int,
        marker: str,
        rank_seconds: float,
        launched: int | None,
    ) -> None:
        self.devices = devices
        self.dtypes = dtypes
        #: The devices that came from the command line: they have to be there.
        self.asked = devices if asked else ()
        self.ranks = ranks
        #: Those that came from the command line: tests have to run on them.
        self.asked_ranks = ranks if asked_ranks else ()
        self.seed = seed
        self.marker = marker
        #: The limit of one test on its ranks.
        self.rank_seconds = rank_seconds
        #: How many ranks torchrun has started, where it has started this process.
        self.launched = launched


def add_options(parser: pytest.Parser) -> None:
    """Add the options and ini values."""
    group = parser.getgroup("paramcheck", "parameters of PyTorch models")
    group.addoption(
        "--param-device",
        action="append",
        metavar="DEV",
        help="Run tests marked params on this device: a torch device, accelerator, auto or all. "
        "Repeatable, takes comma lists. A device that is not there is an error.",
    )
    group.addoption(
        "--param-dtype",
        action="append",
        metavar="DTYPE",
        help="Run tests marked params with this default dtype. Repeatable, takes comma lists.",
    )
    group.addoption(
        "--param-ranks",
        action="append",
        metavar="N",
        help="Run tests marked params(ranks=...) on this number of processes, of those they name. "
        "Repeatable, takes comma lists.",
    )
    group.addoption(
        "--param-rank-timeout",
        metavar="S",
        help="Seconds for one test on its ranks, from set-up to teardown (default: 60)",
    )
    group.addoption(
        "--param-seed",
        metavar="N",
        help="Seed that every test marked params starts from (default: 0)",
    )
    group.addoption(
        "--param-model",
        action="append",
        metavar="MODULE:FACTORY",
        help="Run the whole-model checks on what a factory builds (or on a ModelCase), without a "
        "test file. Repeatable.",
    )
    group.addoption(
        "--param-page",
        metavar="DIR",
        help="Write a page of each model whose whole-model checks run, with what they found, and "
        "an index of the pages, into this folder",
    )
    group.addoption(
        "--param-update",
        action="store_true",
        help="Write the manifests that assert_manifest compares with",
    )
    for name, (text, kinds) in _INI.items():
        parser.addini(name, text, type=kinds[0])


def fit_ini_types(config: pytest.Config, parser: pytest.Parser) -> None:
    """Declare each ini value anew as what it was written as.

    pytest's native ``[tool.pytest]`` (9.0) does not convert: a list refuses a string, a string a
    number. A union of types can be declared since 9.2, and of scalars only.
    """
    for name, (text, kinds) in _INI.items():
        if not _takes(config, name):
            for kind in (*kinds[1:], kinds[0]):  # where none fits, pytest says so of the first
                parser.addini(name, text, type=kind)
                if _takes(config, name):
                    break


def _takes(config: pytest.Config, name: str) -> bool:
    try:
        config.getini(name)
    except (TypeError, ValueError, pytest.UsageError):  # since 9.2 it is a UsageError
        return False
    return True


def selects(config: pytest.Config) -> bool:
    """Whether the command line asks for a part of what there is to run."""
    return any("::" in str(arg) for arg in config.args) or any(
        config.getoption(name, None) for name in ("keyword", "markexpr", "deselect", "lf")
    )


def marker_name(config: pytest.Config) -> str:
    """Return what the marker is called. Raises :class:`pytest.UsageError` for no name of one."""
    name = str(_written(config, "param_marker") or "params")
    if not name.isidentifier() or keyword.iskeyword(name) or name[0] == "_":
        raise pytest.UsageError(f"param_marker (ini): {name!r} is not the name of a marker")
    if name in _TAKEN:
        raise pytest.UsageError(f"param_marker (ini): {name!r} is another marker's name")
    return name


def read_settings(config: pytest.Config, machine: Machine) -> Settings:
    """Resolve command line over ini over default, or raise :class:`pytest.UsageError`.

    Asks torch about devices from the command line, and about the words of either origin.
    """
    asked, devices = _choice(config, "--param-device", "param_devices", device_names)
    _, dtypes = _choice(config, "--param-dtype", "param_dtypes", dtype_names)
    origin = _origin("--param-device", "param_devices", asked)
    workerinput = getattr(config, "workerinput", None)
    here = rank_here(config)
    if here is not None:
        devices = here.devices
    elif workerinput is not None:
        devices = tuple(
            workerinput.get(WORKER_DEVICES, devices)
        )  # the controller's: ids must be equal
    else:
        try:
            devices = machine.resolve(devices)
        except ValueError as error:
            raise pytest.UsageError(f"{origin}: {error}") from None
        for device in devices:
            if problem := machine.unknown(device):
                raise pytest.UsageError(f"{origin}: {problem}")
        if asked:
            for device in devices:
                for dtype in dtypes or (None,):
                    if reason := machine.absent(device, dtype):
                        raise pytest.UsageError(f"{origin}: {device} is not there: {reason}")
    asked_ranks, ranks = _choice(config, "--param-ranks", "param_ranks", _ranks)
    _check_one_device(devices if asked else (), ranks if asked_ranks else ())
    return Settings(
        devices=devices,
        dtypes=dtypes,
        asked=bool(asked),
        ranks=ranks,
        asked_ranks=bool(asked_ranks),
        seed=_seed(config),
        marker=marker_name(config),
        rank_seconds=_seconds(config),
        launched=_launched(config, ranks if asked_ranks else ()),
    )


def share_out(config: pytest.Config) -> None:
    """Keep apart what several processes of torchrun would write: rank 0's is the user's."""
    here = launched(os.environ)
    if here is None or rank_here(config) is not None or here.rank == 0:
        return
    config.option.xmlpath = None
    if config.option.basetemp:
        config.option.basetemp += f"-rank{here.rank}"


def ranks_asked(settings: Settings) -> tuple[int, ...]:
    """Return the numbers of ranks that were asked for, on the command line or by torchrun."""
    return settings.asked_ranks if settings.launched is None else (settings.launched,)


def _launched(config: pytest.Config, asked: Sequence[int]) -> int | None:
    """Return how many ranks torchrun has started. Refuses what does not go together with it."""
    here = None if rank_here(config) is not None else launched(os.environ)
    if here is None:
        return None
    if asked and tuple(asked) != (here.ranks,):
        raise pytest.UsageError(
            f"--param-ranks={','.join(map(str, asked))}: torchrun started {here.ranks}"
        )
    if config.getoption("numprocesses", None) or getattr(config, "workerinput", None) is not None:
        raise pytest.UsageError("-n: torchrun starts the processes; run pytest without -n")
    return here.ranks


def _check_one_device(devices: Sequence[str], ranks: Sequence[int]) -> None:
    """Raise :class:`pytest.UsageError` where both were asked for and can never go together."""
    if not ranks:
        return
    from .ranks.numbers import too_few_devices

    for device in devices:
        for number in ranks:
            if reason := too_few_devices(device, number):
                raise pytest.UsageError(
                    f"--param-device={device} --param-ranks={number}: a test that {reason}"
                )


def _ranks(values: Sequence[str]) -> tuple[int, ...]:
    from .ranks.numbers import written_ranks

    return written_ranks(values)


def _choice(
    config: pytest.Config, option: str, ini: str, parse: Callable[[Sequence[str]], T]
) -> tuple[bool, T | tuple[()]]:
    """Return whether the command line chose, and what was chosen."""
    given: list[str] | None = config.getoption(option)
    written = given if given is not None else _written(config, ini)
    if given is None and written in _NOTHING:
        return False, ()
    try:
        written = str(written) if isinstance(written, int) else written
        words = shlex.split(written) if isinstance(written, str) else written
        return given is not None, parse(words)
    except ValueError as error:
        raise pytest.UsageError(f"{_origin(option, ini, given is not None)}: {error}") from None


def _written(config: pytest.Config, ini: str) -> Any:
    """An ini value, of one of its types."""
    try:
        return config.getini(ini)
    except TypeError as error:  # since 9.2 pytest makes it a UsageError itself
        raise pytest.UsageError(str(error)) from None


def _seed(config: pytest.Config) -> int:
    given: str | None = config.getoption("--param-seed")
    text = given if given is not None else str(_written(config, "param_seed")) or "0"
    try:
        seed = int(text)
        if not 0 <= seed < 2**63:
            raise ValueError
    except ValueError:
        origin = _origin("--param-seed", "param_seed", given is not None)
        raise pytest.UsageError(
            f"{origin}: {text!r} is not a seed; a seed is an integer from 0 to 2**63 - 1"
        ) from None
    return seed


def _seconds(config: pytest.Config) -> float:
    given: str | None = config.getoption("--param-rank-timeout")
    written = given if given is not None else _written(config, "param_rank_timeout")
    if given is None and written in _NOTHING:
        return 60.0
    from .ranks.numbers import written_seconds

    try:
        return written_seconds(str(written))
    except ValueError as error:
        origin = _origin("--param-rank-timeout", "param_rank_timeout", given is not None)
        raise pytest.UsageError(f"{origin}: {error}") from None


def _origin(option: str, ini: str, from_command_line: bool) -> str:
    return f"{option} (command line)" if from_command_line else f"{ini} (ini)"

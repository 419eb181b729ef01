"""``--param-*`` and the ini -> frozen :class:`Settings`; the params marker -> what it supports.

The one place that raises :class:`pytest.UsageError`: every error names the value, where it
came from and what would be valid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import pytest

from ..messages.wording import did_you_mean
from .devices import Machine, device_names, dtype_names

T = TypeVar("T")
#: xdist's workers get the controller's resolved names under these keys.
WORKER_DEVICES = "paramcheck_devices"
MARKER = "params"
MARKER_LINE = (
    "params(*, devices=None, dtypes=None): run once per device of --param-device (and dtype of "
    "--param-dtype), with the device as torch's default device and from a fixed seed; devices= "
    "and dtypes= say what the test supports."
)
#: What parametrize_with_param_checks puts on a test.
CASES = "param_cases"
CASES_LINE = "param_cases(cases): whole-model checks; put there by parametrize_with_param_checks."


class Settings(NamedTuple):
    """What the user chose. Empty ``devices`` or ``dtypes``: nothing was chosen.

    ``asked`` are the devices that came from the command line: they have to be there.
    """

    devices: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    seed: int = 0
    asked: tuple[str, ...] = ()


class Support(NamedTuple):
    """What a params marker says a test supports; None: everything."""

    devices: tuple[str, ...] | None = None
    dtypes: tuple[str, ...] | None = None


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
        "--param-update",
        action="store_true",
        help="Write the manifests that assert_manifest compares with",
    )
    parser.addini("param_devices", "Devices for tests marked params", type="args")
    parser.addini("param_dtypes", "Default dtypes for tests marked params", type="args")
    parser.addini("param_seed", "Seed that every test marked params starts from")


def selects(config: pytest.Config) -> bool:
    """Whether the command line asks for a part of what there is to run."""
    return any("::" in str(arg) for arg in config.args) or any(
        config.getoption(name, None) for name in ("keyword", "markexpr", "deselect", "lf")
    )


def read_settings(config: pytest.Config, machine: Machine) -> Settings:
    """Resolve command line over ini over default, or raise :class:`pytest.UsageError`.

    Asks torch about devices from the command line, and about the words of either origin.
    """
    asked, devices = _choice(config, "--param-device", "param_devices", device_names)
    _, dtypes = _choice(config, "--param-dtype", "param_dtypes", dtype_names)
    origin = _origin("--param-device", "param_devices", asked)
    workerinput = getattr(config, "workerinput", None)
    if workerinput is not None:
        devices = tuple(
            workerinput.get(WORKER_DEVICES, devices)
        )  # the controller's: ids must be equal
    else:
        try:
            devices = machine.resolve(devices)
        except ValueError as error:
            raise pytest.UsageError(f"{origin}: {error}") from None
        if asked:
            for device in devices:
                for dtype in dtypes or (None,):
                    if reason := machine.absent(device, dtype):
                        raise pytest.UsageError(f"{origin}: {device} is not there: {reason}")
    return Settings(devices, dtypes, _seed(config), devices if asked else ())


def read_marker(mark: pytest.Mark) -> Support:
    """Return what a params marker supports. ValueError says what is wrong with it."""
    if mark.args:
        shown = ", ".join(map(repr, mark.args))
        raise ValueError(
            f"@pytest.mark.params takes no positional arguments, got ({shown}); "
            f"did you mean @pytest.mark.parametrize?"
        )
    for name in mark.kwargs:
        if name not in ("devices", "dtypes"):
            hint = did_you_mean(name, ("devices", "dtypes")) or " it takes devices= and dtypes="
            raise ValueError(f"@pytest.mark.params has no argument {name!r};{hint}")
    return Support(
        _supported("devices", mark.kwargs.get("devices"), device_names),
        _supported("dtypes", mark.kwargs.get("dtypes"), dtype_names),
    )


def read_devices_of_hook(answer: Any) -> tuple[str, ...]:
    """Return the devices that a conftest names for a test. ValueError says what is wrong."""
    origin = f"hook pytest_paramcheck_devices returned {answer!r}"
    return _supported("devices", answer, device_names, origin) or ()


def _supported(
    name: str, value: Any, parse: Callable[[Sequence[str]], tuple[str, ...]], origin: str = ""
) -> tuple[str, ...] | None:
    if value is None:
        return None
    origin = origin or f"@pytest.mark.params({name}={value!r})"
    values = [value] if isinstance(value, str) or not _is_list(value) else list(value)
    # torch.device and torch.dtype are welcome too, without importing torch to recognise them.
    texts = [v if isinstance(v, str) else str(v) for v in values]
    try:
        parsed = parse(texts)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None
    for word in ("auto", "all"):
        if name == "devices" and word in parsed:
            raise ValueError(
                f"{origin}: {word!r} is a choice for --param-device; "
                f"devices= names what the test supports, e.g. 'cpu' or 'accelerator'"
            )
    return parsed


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple, set, frozenset))


def _choice(
    config: pytest.Config, option: str, ini: str, parse: Callable[[Sequence[str]], T]
) -> tuple[bool, T | tuple[()]]:
    """Return whether the command line chose, and what was chosen."""
    given: list[str] | None = config.getoption(option)
    values = given if given is not None else list(config.getini(ini))
    if given is None and not values:
        return False, ()
    try:
        return given is not None, parse(values)
    except ValueError as error:
        raise pytest.UsageError(f"{_origin(option, ini, given is not None)}: {error}") from None


def _seed(config: pytest.Config) -> int:
    given: str | None = config.getoption("--param-seed")
    text = given if given is not None else (config.getini("param_seed") or "0")
    try:
        seed = int(str(text))
        if not 0 <= seed < 2**63:
            raise ValueError
    except ValueError:
        origin = _origin("--param-seed", "param_seed", given is not None)
        raise pytest.UsageError(
            f"{origin}: {text!r} is no seed; a seed is an integer from 0 to 2**63 - 1"
        ) from None
    return seed


def _origin(option: str, ini: str, from_command_line: bool) -> str:
    return f"{option} (command line)" if from_command_line else f"{ini} (ini)"

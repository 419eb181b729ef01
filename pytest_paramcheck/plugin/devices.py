"""Device and dtype names: grammar, order, ids, and whether a device is there.

Names travel as strings (options, ids, xdist) and torch is asked only whether a device is
there, and only about a device somebody named: importing torch costs ten times what the rest of
a pytest start does. :class:`Machine` is the one place that asks.

Tests: ``tests/integration/test_devices.py``, ``test_absent.py``, ``test_misuse.py`` and
``test_ini.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING, TypeVar

# What only messages need, here and in the other files that load with the plugin, is imported where
# a message is written: every file costs a tenth of a millisecond of every pytest start.

if TYPE_CHECKING:
    import torch

D = TypeVar("D")
#: Words that choose among the machine's devices; no test supports a choice.
CHOICES = ("auto", "all")
#: Words for devices of the machine, resolved before collection.
WORDS = ("accelerator", *CHOICES)
#: For suggestions; torch decides what a device is.
FAMILIAR = ("cpu", "cuda", "mps", "xpu", "meta", "hpu", "mtia", "xla", *WORDS)
DTYPES = ("float32", "float64", "bfloat16", "float16")
_SHORT_DTYPES = {"float": "float32", "double": "float64", "half": "float16"}
#: Torch keeps an index in a signed byte, and makes cuda:0 of cuda:256 without a word.
_LAST_INDEX = 127
#: Compiled where a name is first read: loading the plugin does not pay for it.
_GRAMMAR = r"[a-z][a-z0-9_]*(?::(?:0|[1-9][0-9]*))?"


class Variant:
    """The device (and dtype) one marked test runs on, as they were asked for.

    ``skip`` is the reason why it cannot run although its id is kept; whether the device is
    there is asked later.
    """

    # Neither a NamedTuple nor a dataclass, here and in the other files that load with the plugin:
    # making one takes a quarter, or half a millisecond of every pytest start.
    def __init__(
        self, device: str, dtype: str | None = None, skip: str = "", ranks: int | None = None
    ) -> None:
        self.device = device
        self.dtype = dtype
        self.skip = skip
        #: How many processes run it together; None: this one alone.
        self.ranks = ranks

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Variant) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.device, self.dtype, self.skip, self.ranks))

    def __repr__(self) -> str:
        return f"Variant({self.id})"

    @property
    def id(self) -> str:
        """The part of the test id: ``cpu``, ``cuda:1``, ``cuda-bfloat16``, ``cpu-2ranks``."""
        ranks = None
        if self.ranks is not None:
            ranks = f"{self.ranks}rank" if self.ranks == 1 else f"{self.ranks}ranks"
        return "-".join(part for part in (self.device, self.dtype, ranks) if part)


def split_names(values: Iterable[str]) -> list[str]:
    """Split values at commas and white space; order is kept, duplicates are dropped."""
    return list(dict.fromkeys(n for value in values for n in re.split(r"[,\s]+", value) if n))


def device_names(values: Iterable[str], *, excluding: bool = False) -> tuple[str, ...]:
    """Return the device names in the values. ValueError names the first that is none.

    ``excluding``: they may all have a ``!`` in front, and mean every device but these.
    """
    words = split_names(values)
    if not words:
        raise ValueError("no device given")
    without = [word for word in words if word[0] == "!" and len(word) > 1] if excluding else []
    if without and len(without) < len(words):
        beside = next(word for word in words if word not in without)
        raise ValueError(
            f"{without[0]!r} beside {beside!r}: name what is supported, or with '!' what is not"
        )
    for name in (word[1:] if without else word for word in words):
        if kind(name) in WORDS and name not in WORDS:
            raise ValueError(f"{name!r} is not a device name: {kind(name)!r} takes no index")
        if not re.fullmatch(_GRAMMAR, name):
            from ..messages.wording import did_you_mean

            hint = did_you_mean(name.lower(), FAMILIAR)
            raise ValueError(f"{name!r} is not a device name;{hint or _device_grammar()}")
        index = name.partition(":")[2]
        if index and (len(index) > 3 or int(index) > _LAST_INDEX):
            raise ValueError(f"{name!r} is not a device name: an index is at most {_LAST_INDEX}")
    return tuple(words)


def dtype_names(values: Iterable[str]) -> tuple[str, ...]:
    """Return the dtype names in the values. ValueError names the first that is none."""
    names = [name.removeprefix("torch.") for name in split_names(values)]
    names = list(dict.fromkeys(_SHORT_DTYPES.get(name, name) for name in names))
    if not names:
        raise ValueError("names no dtype")
    for name in names:
        if name not in DTYPES:
            from ..messages.wording import did_you_mean, join_words

            near = (
                did_you_mean(name.lower(), DTYPES, at_most=1)
                or f" choose from {join_words(DTYPES, 'or')}"
            )
            raise ValueError(f"{name!r} cannot be a default dtype;{near}")
    return tuple(names)


def _device_grammar() -> str:
    from ..messages.wording import join_words

    return f" a device is a torch device like 'cuda' or 'cuda:1', or {join_words(WORDS, 'or')}"


def kind(name: str) -> str:
    """Return the device type of a name: ``cuda`` for ``cuda:1``."""
    return name.partition(":")[0]


def meets(supported: str, chosen: str) -> str | None:
    """Return the device to run on where a test supports one name and another was chosen.

    A name without index stands for every index of its type, ``accelerator`` for every type but
    cpu and meta; the more specific of the two names wins. None where they do not meet.
    """
    if supported == chosen:
        return chosen
    if supported == "accelerator":
        return chosen if kind(chosen) not in ("cpu", "meta") else None
    if kind(supported) != kind(chosen):
        return None
    if supported == kind(supported):
        return chosen
    return supported if chosen == kind(chosen) else None


def is_excluding(words: Sequence[str], chosen: str) -> bool:
    """Whether one of the supported words takes a chosen device away (``!cuda`` takes cuda:1)."""
    return any(word[0] == "!" and meets(word[1:], chosen) == chosen for word in words)


def variants(
    chosen_devices: Sequence[str],
    chosen_dtypes: Sequence[str],
    devices: Sequence[str] | None,
    dtypes: Sequence[str] | None,
) -> tuple[Variant, ...]:
    """Return what a marked test runs on: what it supports of what was chosen.

    Without a choice: everything it supports, or the cpu. Where the choice and the support do
    not meet, the supported ones are kept as variants that say why they are skipped. Where ``!``
    takes away all that was chosen, the first is kept so.
    """
    if devices and devices[0][0] == "!":
        run_devices, off = _but(devices, chosen_devices)
    else:
        run_devices, off = _on_axis("on", chosen_devices, devices, meets, default="cpu")
    run_dtypes, other = _on_axis("in", chosen_dtypes, dtypes, _same, default=None)
    return tuple(Variant(*both, off or other) for both in product(run_devices, run_dtypes))


def _but(words: Sequence[str], chosen: Sequence[str]) -> tuple[list[str], str]:
    """Return the chosen devices (or the cpu) that no word takes away, and why there is none."""
    candidates = [*chosen] or ["cpu"]
    found = [name for name in candidates if not is_excluding(words, name)]
    if found:
        return found, ""
    from ..messages.wording import join_words

    but = join_words([word[1:] for word in words], "or")
    return candidates[:1], f"does not run on {but}; chosen: {', '.join(chosen) or 'nothing'}"


def _on_axis(
    runs: str,
    chosen: Sequence[str],
    supported: Sequence[str] | None,
    meet: Callable[[str, str], str | None],
    *,
    default: D,
) -> tuple[list[str | D], str]:
    """Return what a test runs on in one respect, and why it cannot run there (or ``""``)."""
    if supported is None:
        return [*chosen] or [default], ""
    if not chosen:
        return [*supported], ""
    met = (meet(one, other) for other in chosen for one in supported)
    found = [name for name in dict.fromkeys(met) if name]
    if found:
        return [*found], ""
    from ..messages.wording import join_words

    only = f"runs {runs} {join_words(supported)} only; chosen: {', '.join(chosen)}"
    return [*supported], only


def _same(supported: str, chosen: str) -> str | None:
    return chosen if supported == chosen else None


class Machine:
    """What this machine has, asked once per name and remembered.

    ``worker`` is the number of the xdist worker (None outside): workers share out the
    accelerators, so that a device without an index means another one for each of them.
    """

    def __init__(self, worker: int | None = None) -> None:
        self.worker = worker
        self._absent: dict[tuple[str, str | None], str] = {}
        self._unknown: dict[str, str] = {}

    def resolve(self, names: Iterable[str]) -> tuple[str, ...]:
        """Replace the words of :data:`WORDS`. ValueError where there is no accelerator."""
        resolved: list[str] = []
        for name in names:
            if name not in WORDS:
                resolved.append(name)
                continue
            accelerator = self.accelerator()
            if name == "accelerator" and accelerator is None:
                raise ValueError("'accelerator': torch sees no accelerator on this machine")
            if name == "all":
                resolved.append("cpu")
            if accelerator is not None:
                resolved.append(accelerator)
            elif name == "auto":
                resolved.append("cpu")
        return tuple(dict.fromkeys(resolved))

    def accelerator(self) -> str | None:
        """Return the type of the machine's accelerator, or None."""
        import torch

        # current_accelerator() alone answers for the build, not for the machine.
        if not torch.accelerator.is_available():
            return None
        found = torch.accelerator.current_accelerator()
        if found is None or self.absent(found.type):
            return None
        return str(found.type)

    def unknown(self, name: str) -> str:
        """Return why no machine can have a device of this name, or ``""``.

        Asks torch only about types that are not familiar: another maker's exists once its
        package is imported, wherever that package comes from.
        """
        device_type = kind(name)
        if device_type in FAMILIAR:
            return ""
        if device_type not in self._unknown:
            self._unknown[device_type] = self._said_unknown(device_type)
        return self._unknown[device_type]

    @staticmethod
    def _said_unknown(device_type: str) -> str:
        import torch

        try:
            torch.device(device_type)
        except RuntimeError:
            from ..messages.wording import did_you_mean

            suggestion = did_you_mean(device_type, FAMILIAR)
            return (
                f"torch knows no device type {device_type!r};{suggestion} A vendor's device exists "
                f"once its package is imported, in a conftest"
                if suggestion
                else f"torch knows no device type {device_type!r}; a vendor's device exists once "
                f"its package is imported, in a conftest"
            )
        return ""

    def absent(self, name: str, dtype: str | None = None) -> str:
        """Return why a device (with a dtype) cannot be used, or ``""``.

        "There" means that the device is counted and that an allocation works: ``is_available()``
        can be True with no device, and ``torch.device("cuda:9")`` never fails.
        """
        if name in ("cpu", "meta"):
            return ""  # always there, in every dtype of DTYPES
        key = (name, dtype)
        if key not in self._absent:
            self._absent[key] = self._probe(name, dtype)
        return self._absent[key]

    def _probe(self, name: str, dtype: str | None) -> str:
        import torch

        if name == "accelerator":
            return "" if self.accelerator() else "torch sees no accelerator"
        device = torch.device(name)
        if device.type not in ("cpu", "meta"):
            count: int | None
            try:
                count = torch.get_device_module(device.type).device_count()
            except (RuntimeError, AttributeError):
                count = None  # a backend without a module of its own: the allocation decides
            if count == 0:
                return f"torch sees no {device.type} device"
            if count is not None and ":" in name and device.index >= count:
                from ..messages.wording import plural

                return f"{name}: torch sees {plural(count, f'{device.type} device')}"
        try:
            torch.empty(1, device=device, dtype=getattr(torch, dtype) if dtype else torch.float32)
        except Exception as error:  # AssertionError, NotImplementedError, ModuleNotFoundError, ...
            from ..messages.wording import first_line

            said = first_line(error) or type(error).__name__
            line = said.partition(". ")[0]  # the cause; advice follows it
            return f"torch cannot allocate on {name}{f' in {dtype}' if dtype else ''}: {line}"
        return ""

    def device(self, name: str) -> torch.device:
        """Return the device a name means here; workers take turns at several accelerators."""
        import torch

        if name == "accelerator":
            name = self.accelerator() or name
        device = torch.device(name)
        if self.worker is None or device.index is not None or device.type in ("cpu", "meta"):
            return device
        count = torch.get_device_module(device.type).device_count()
        return torch.device(device.type, self.worker % count) if count > 1 else device

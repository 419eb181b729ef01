"""What a command is about: a model that a factory builds, or a checkpoint on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..messages.errors import ParamCheckUsageError
from ..messages.wording import first_line
from ..model_checks.named import one_named
from ..model_checks.run import CaseRun
from ..parameters.subject.reading import take_inventory
from .progress import doing


class Shown(NamedTuple):
    """What was named: what was read of it, and how a model is run."""

    inventory: Any  # an Inventory, which is a subject like what it was read of
    run: CaseRun | None


def is_checkpoint(spec: str) -> bool:
    """Whether a spec is the path of something on disk and no ``module:factory``.

    Raises :class:`ParamCheckUsageError` where it is neither.
    """
    path = Path(spec)
    try:
        there = bool(spec) and path.exists()
    except (OSError, ValueError):  # too long for a path, or with a null character
        there = False
    if there:
        return True
    if ":" not in spec or path.suffix in (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".json"):
        raise ParamCheckUsageError(
            f"{spec or repr(spec)}: there is no such file, and it is not a module:factory either"
        )
    return False


def read(spec: str, *, key: str | None = None, seed: int = 0) -> Shown:
    """Build the model or read the checkpoint that a spec names.

    Raises :class:`ParamCheckUsageError` for what cannot be found, imported, called or read.
    """
    if is_checkpoint(spec):
        with doing(f"reading {spec}"):
            return Shown(take_inventory(Path(spec), key=key), None)
    if key is not None:
        raise ParamCheckUsageError(f"--key is for checkpoints, and {spec} names a model")
    with doing(f"building {spec}"):
        case, _ = one_named(spec, Path.cwd(), spec)
        run = CaseRun(case, seed)
        return Shown(take_inventory(run.model), run)


@contextmanager
def on_device(name: str | None) -> Iterator[None]:
    """Let models be built on a device: it is torch's default inside.

    Raises :class:`ParamCheckUsageError` for one that is not there.
    """
    if name is None:
        yield
        return
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except Exception as error:  # each backend has an error of its own
        raise ParamCheckUsageError(
            f"--device={name} is not there: {first_line(error, 160)}"
        ) from None
    with device:
        yield

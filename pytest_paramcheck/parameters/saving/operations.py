"""What happens to a model on its way: copies, saves, loads, moves, wraps; each done to a copy.

An operation is a function model -> model (or None where it works in place). The named ones are
listed in :data:`OPERATIONS`; ``to(...)`` and ``to_empty(...)`` take a dtype or a device.

Tests: ``tests/unit/test_ties_survive.py``.
"""

from __future__ import annotations

import io
import pickle
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ...messages.errors import ParamCheckUsageError
from ...messages.folding import fold_names
from ...messages.wording import did_you_mean, first_line, join_words, shorten
from ..files.safetensors_file import safetensors_torch
from ..subject.copies import deep_copy
from ..subject.fsdp import is_sharded_by_fsdp, own_class
from ..subject.reading import take_inventory
from ..tensors.describe import dtype_named
from ..tensors.identity import shared_memory

Operation: TypeAlias = Callable[[nn.Module], "nn.Module | None"]


@contextmanager
def quiet_storage_warnings() -> Iterator[None]:
    """Leave out what torch says about its own storage classes: nothing a test could change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TypedStorage is deprecated", UserWarning)
        yield


def copied(model: nn.Module, *, computed: bool = True) -> nn.Module:
    """Return a deep copy with memory of its own, or raise the error that says why there is none.

    ``computed``: what a forward left in an attribute, with its graph, is no obstacle. torch copies
    no such tensor, and old weight_norm and pruning leave one in every module.

    What is done to a copy that shares (a ``__deepcopy__`` of the user's own) would be done to
    the model.
    """
    try:
        with quiet_storage_warnings():
            twin = deep_copy(model, computed=computed)
    except Exception as error:  # a copy raises whatever the members of a model raise
        if is_sharded_by_fsdp(model):
            raise ParamCheckUsageError(
                f"torch cannot copy a model that fully_shard wrapped, so nothing can be done to a "
                f"copy of {own_class(model).__name__}: save and load it with through='dcp' or a "
                f"function model -> model; assert_same_ties(plain, wrapped) compares ties"
            ) from None
        raise ParamCheckUsageError(
            f"{type(model).__name__} cannot be copied, so nothing can be done to a copy: "
            f"{first_line(error, 160) or 'no reason given'}"
        ) from None
    ours, theirs = tensors_by_id(model), tensors_by_id(twin)
    shared = [theirs[key][0] for key in theirs if key in ours]  # the very objects
    if not shared:
        both = [*ours.values(), *theirs.values()]
        groups = shared_memory([tensor for _, tensor in both]).groups
        shared = [both[group[0]][0] for group in groups if group[0] < len(ours) <= group[-1]]
    if shared:
        raise ParamCheckUsageError(
            f"a deep copy of {type(model).__name__} shares memory with it "
            f"({shorten(fold_names(shared), 3)}): what is done to the copy would be done to the "
            f"model; let its __deepcopy__ copy them"
        )
    return twin


def tensors_by_id(model: nn.Module) -> dict[int, tuple[str, Tensor]]:
    """Return the tensors of a model by id (alive as long as the model), each with its name."""
    entries = take_inventory(model, allow_empty=True).entries
    return {id(e.tensor): (e.name, e.tensor) for e in entries if e.tensor is not None}


def _pickled(model: nn.Module) -> nn.Module:
    restored: nn.Module = pickle.loads(pickle.dumps(model))
    return restored


def _saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    # The file is one we have just written: it holds the user's own module.
    restored: nn.Module = torch.load(file, weights_only=False)
    return restored


def _loaded(model: nn.Module, assign: bool) -> nn.Module:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    target = deep_copy(model, computed=True)
    target.load_state_dict(torch.load(file, weights_only=True), assign=assign)
    return target


def _safetensors(model: nn.Module) -> nn.Module:
    library = safetensors_torch()
    target = deep_copy(model)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "model.safetensors")
        library.save_model(model, file)
        library.load_model(target, file)
    return target


def _compiled(model: nn.Module) -> nn.Module:
    # A wrapper: nothing is compiled before the first call, and the eager backend imports least.
    compiled: Any = torch.compile(model, backend="eager")
    return compiled  # type: ignore[no-any-return]


def _ema(model: nn.Module) -> nn.Module:
    from torch.optim.swa_utils import AveragedModel

    return AveragedModel(model)


def _fully_sharded(model: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    with _process_group():
        fully_shard(model)
    return model


@contextmanager
def _process_group() -> Iterator[None]:
    """Use the process group that is there, or a fake one of this process alone."""
    import torch.distributed as dist

    if dist.is_initialized():
        yield
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=1, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


#: The named operations. ``export`` is the one that needs example inputs.
OPERATIONS: Mapping[str, Operation] = {
    "deepcopy": deep_copy,
    "pickle": _pickled,
    "torch.save": _saved,
    "load_state_dict": lambda model: _loaded(model, assign=False),
    "load_state_dict(assign=True)": lambda model: _loaded(model, assign=True),
    "safetensors": _safetensors,
    "compile": _compiled,
    "ema": _ema,
    "fully_shard": _fully_sharded,
}
#: What every model goes through sooner or later; the default of ``assert_ties_survive``.
USUAL = ("deepcopy", "pickle", "torch.save", "load_state_dict", "to(float64)", "ema")


def usual(model: nn.Module) -> tuple[str, ...]:
    """Return the operations of ``USUAL`` that torch can do: a scripted module is not pickled."""
    scripted = any(isinstance(module, torch.jit.ScriptModule) for module in model.modules())
    return tuple(name for name in USUAL if not (scripted and name in ("pickle", "torch.save")))


_CALL = re.compile(r"(to|to_empty)\(([^()]+)\)")


def operation(name: str, inputs: tuple[Any, ...] | None) -> Operation:
    """Return a named operation, or raise :class:`ParamCheckUsageError` with the valid names."""
    if name in OPERATIONS:
        return OPERATIONS[name]
    if name == "export":
        if inputs is None:
            raise ParamCheckUsageError(
                "the operation 'export' traces the model: pass example inputs, inputs=(x,)"
            )
        return _exporter(inputs)
    call = _CALL.fullmatch(name)
    if call is None:
        known = (*OPERATIONS, "export", "to(float64)", "to(cuda)", "to_empty(cpu)")
        raise ParamCheckUsageError(
            f"no operation {name!r};"
            f"{did_you_mean(name, known) or f' there are {join_words([repr(n) for n in known])}'}"
        )
    how, what = call.groups()
    dtype = dtype_named(what)
    if how == "to" and dtype is not None:
        return _mover(dtype=dtype)
    try:
        device = torch.device(what)
        torch.empty(1, device=device)
    except Exception as error:  # absent devices raise whatever their backend likes
        raise ParamCheckUsageError(
            f"operation {name!r}: {what!r} is not a dtype or a device that is there "
            f"({first_line(error)})"
        ) from None
    if how == "to":
        return _mover(device=device)

    def to_empty(model: nn.Module) -> nn.Module:
        return model.to_empty(device=device)

    return to_empty


def _mover(**target: Any) -> Operation:
    def move(model: nn.Module) -> nn.Module:
        return model.to(**target)

    return move


def _exporter(inputs: tuple[Any, ...]) -> Operation:
    def export(model: nn.Module) -> nn.Module:
        return torch.export.export(model, inputs).module()

    return export

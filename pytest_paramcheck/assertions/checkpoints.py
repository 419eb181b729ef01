"""Assertions about saving and loading."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..checks.checkpoint import not_publishable, nothing_there
from ..checks.loaded import not_loaded
from ..checks.roundtrip import lost_on_the_way, lost_through_dcp
from ..checks.tolerance import demand_dtypes
from ..messages.errors import ParamCheckUsageError, raise_if
from ..messages.folding import fold_names
from ..messages.wording import a_or_an, shorten
from ..parameters.files.contents import read_contents
from ..parameters.running.modes import keep_modes
from ..parameters.running.randomness import keep_random_states
from ..parameters.running.undo import Undo
from ..parameters.saving.asked import ask, own_keys, speaks
from ..parameters.saving.dcp import saved_and_loaded
from ..parameters.saving.operations import copied
from ..parameters.saving.roundtrips import DCP, Target, route_of
from ..parameters.saving.state_dicts import (
    Checkpoint,
    own_parameters,
    take_checkpoint,
    tensors_of_state,
    wrapped_keys,
)
from ..parameters.subject.inventory import Inventory, Subject
from ..parameters.subject.patterns import Pattern
from ..parameters.subject.reading import require_tensors, take_inventory
from ..parameters.subject.select import select
from ..parameters.subject.sharded_alike import sharded_alike
from ..parameters.tensors.content import no_values
from .verdict import one_verdict


@one_verdict(runs=True)
def assert_roundtrip(
    model: nn.Module, through: str | Callable[[nn.Module], nn.Module | None] = "state_dict"
) -> None:
    """Assert that a model survives being saved and loaded.

    What is loaded into was overwritten first, so that a load which does nothing is noticed. The
    model itself is left as it is.

    Passes where names, shapes, dtypes, ``requires_grad``, ties, their order and all values of
    parameters and persistent buffers come back, bit for bit.

    * ``through=``: ``"state_dict"`` (into a deep copy), ``"torch.save"`` (the state_dict through a
      file, read with ``weights_only``), ``"safetensors"`` (an extra), ``"pickle"`` (the whole
      module), ``"dcp"`` (a folder of torch.distributed.checkpoint, written and read by all ranks),
      or a callable model -> model, done to a copy.

    Fails for a model that cannot be saved this way, for each key that was not saved or not
    taken back, and for everything that is different afterwards.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a model that has no
    values (meta, lazy), that cannot be copied or whose copy shares memory with it, and for an
    unknown ``through``. An error of the callable comes through unchanged.

    >>> from torch import nn
    >>> assert_roundtrip(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))

    >>> import copy
    >>> layer = nn.Linear(3, 3, bias=False)
    >>> tied = nn.Sequential(layer, layer)
    >>> assert_roundtrip(tied, lambda model: nn.Sequential(*map(copy.deepcopy, model)))
    Traceback (most recent call last):
        ...
    ParamCheckError: tie lost: 1.weight (Sequential)
    <BLANKLINE>
      1.weight  expected tied to 0.weight, found not tied
    """
    __tracebackhide__ = True
    if not isinstance(model, nn.Module):
        raise ParamCheckUsageError(
            f"a model is saved and loaded, not {a_or_an(type(model).__name__)}; "
            f"for a state_dict on disk there is assert_loaded"
        )
    round_trip(model, through, copied)


def round_trip(
    model: nn.Module, through: str | Callable[[nn.Module], nn.Module | None], target: Target
) -> None:
    """Ask what :func:`assert_roundtrip` asks, loading into what ``target`` makes."""
    __tracebackhide__ = True
    save_and_load = None if through == DCP else route_of(through, target)
    before = take_inventory(model)
    if not any(entry.persistent for entry in before.entries) and not _saves(model):
        raise ParamCheckUsageError(
            f"{before.title} saves nothing: it has no parameters and no persistent buffers; "
            f"there is nothing to check"
        )
    for entry in before.entries:
        if entry.tensor is not None and (reason := no_values(entry.tensor)):
            raise ParamCheckUsageError(f"{entry.name}: {reason}; there is nothing to save")
    if save_and_load is None:
        with _undisturbed(before):
            loaded = saved_and_loaded(tensors_of_state(before))
        raise_if(lost_through_dcp(before, take_inventory(loaded, allow_empty=True)), before)
        return
    with _undisturbed(before):
        returned = save_and_load(model)
    after = take_inventory(returned.model, allow_empty=True)
    findings = lost_on_the_way(before, after, returned)
    del returned, after  # an error keeps this frame, and with it the copy
    raise_if(findings, before.title)


@one_verdict
def assert_loaded(
    model: Subject,
    checkpoint: Mapping[str, Tensor] | str | os.PathLike[str],
    *,
    missing: Sequence[Pattern] = (),
    unexpected: Sequence[Pattern] = (),
    rename: Mapping[str, str] | Callable[[str], str] | None = None,
    dtypes: bool = False,
    key: str | None = None,
) -> None:
    """Assert that a checkpoint is in the model, all of it, and nothing else.

    ``checkpoint`` is a state_dict or the path of one: a file (``torch.save``, read with
    ``weights_only``; ``.safetensors``), the ``.index.json`` of several, a folder with one of these
    in it, or one of torch.distributed.checkpoint.

    Passes where every tensor of the checkpoint is in the model and every parameter and persistent
    buffer came from it, under one of its names. A loader may have renamed keys on the way (a
    prefix, a component) where the values arrived. Modules that save or load in their own way
    (hooks, ``_save_to_state_dict``, quantized layers) are asked about keys that are no names: by
    their ``state_dict()``, and by a load into a copy of the model. Values are compared after the
    cast to the parameter's dtype, so that rounding is no difference; a ``(1,)`` entry fits a 0-dim
    parameter, by torch's own rule. A model may share memory with the mapping that it was loaded
    from (``assign=True``, ``from_pretrained``): comparing a model with its own ``state_dict()``
    therefore passes, and proves nothing.

    * ``missing=``: patterns of the model: what may not be in the checkpoint.
    * ``unexpected=``: patterns of the checkpoint: what the model may not have. A new head in the
      place of the old one is named in both.
    * ``rename=``: translates the keys before anything is compared: prefixes (``{"module": ""}``) or
      a function.
    * ``dtypes=True``: the dtypes have to be the checkpoint's.
    * ``key=``: where in the file the state_dict lies (``"model"``).

    Fails, all at once: keys on one side only (a common prefix and probable renames are pointed
    out), other shapes (equal after broadcasting is no match), other values (nothing loaded,
    initialized again after the load, or trained since), values that the parameter's dtype
    cannot hold (overflow, or more than half underflowed to zero), and ties of the checkpoint
    that the model does not have.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a file that cannot be
    read, a mapping that holds something else than tensors (``checkpoint["model"]``?) or the
    model's own Parameter objects, and patterns that match nothing.

    >>> import copy
    >>> from torch import nn
    >>> model = nn.Linear(3, 2)
    >>> state = copy.deepcopy(model.state_dict())
    >>> assert_loaded(model, state)

    >>> del state["bias"]
    >>> assert_loaded(model, state)
    Traceback (most recent call last):
        ...
    ParamCheckError: not in the checkpoint: bias (Linear)
    <BLANKLINE>
      bias  Parameter 2 float32 cpu as the model was built
    <BLANKLINE>
      hint: if it is meant to be new: missing=['bias']
    """
    __tracebackhide__ = True
    demand_dtypes(dtypes)
    inventory = take_inventory(model, allow_empty=True)

    def own() -> set[str]:
        with _undisturbed(inventory):
            return own_keys(inventory)

    if not inventory.named and not own():
        require_tensors(inventory)
    taken = take_checkpoint(checkpoint, inventory, own, key=key, rename=rename)
    saved = taken.tensors
    if mine := own_parameters(inventory, saved):
        raise ParamCheckUsageError(
            f"the checkpoint holds the model's own Parameter objects "
            f"({shorten(fold_names(mine), 3)}), as named_parameters() gives them and "
            f"load_state_dict(assign=True) takes them over: the model would be compared with "
            f"itself; pass the file, or a copy made before"
        )
    wrapped = wrapped_keys(inventory)
    key_names: dict[str, str] = {}
    for key in saved.named:
        name = key if key in inventory.named else wrapped.get(key)
        if name is not None and inventory.by_name[name].persistent:
            key_names[key] = name
    inventory, saved = sharded_alike(
        inventory, saved, ((name, key) for key, name in key_names.items())
    )
    absent = select(inventory, _listed("missing", missing)) if missing else []
    extra = select(_by_every_key(taken), _listed("unexpected", unexpected)) if unexpected else []
    compare = partial(
        not_loaded,
        inventory,
        saved,
        key_names,
        missing=set(absent),
        unexpected={name for entry in extra for name in entry.names},
        others=taken.others,
        origins=taken.origins,
        dtypes=dtypes,
    )
    findings = compare()
    if findings and inventory.root is not None and speaks(inventory.root):
        # Only now: names and values have nothing to ask about in nearly every right model.
        with _undisturbed(inventory):
            asked = ask(inventory, taken.mapping, key_names)
        findings = compare(asked=asked)
        del asked
    del taken, saved, extra, compare  # an error keeps this frame: not what was read from a file
    raise_if(findings, inventory)


def assert_checkpoint(path: str | os.PathLike[str], *, key: str | None = None) -> None:
    """Assert that a checkpoint is whole, finite and no larger than its tensors.

    ``path`` is a file (``torch.save``, safetensors), the ``.index.json`` of several files, a
    folder with one of these in it (of several formats the safetensors: ask about others by name),
    or one of torch.distributed.checkpoint. All tensors in it are looked at, an optimizer's too.
    Nothing in it is run.

    Passes where every file can be read without unpickling code, the index and its shards name
    the same tensors, and every tensor has elements and finite values. A mask of 0 and ``-inf``
    is right, and so is a layer without inputs, whose weight has no elements.

    * ``key=``: asks about one part of a file (``"model"``).

    Fails, all at once: a file that is truncated, a Git LFS pointer or of another kind, one that
    holds objects, a shard that is not there, a folder whose save did not finish or to which not
    all ranks wrote, names and files on one side of the index only,
    tensors that are empty or on meta, a NaN or an infinity, and views that were saved with all
    of the memory they look into.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a path that does not
    exist, a folder in which there is no checkpoint or more than one, and a key that is not there.

    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "model.pt")
    >>> torch.save({"weight": torch.ones(3, 2), "bias": torch.zeros(3)}, path)
    >>> assert_checkpoint(path)
    >>> everything = torch.ones(1000, 2)
    >>> torch.save({"weight": everything[:3], "bias": torch.tensor([0.0, torch.nan])}, path)
    >>> assert_checkpoint(path)
    Traceback (most recent call last):
    ParamCheckError: not finite: bias; larger than its tensors: weight (model.pt)
    <BLANKLINE>
      not finite:
        bias  1 of 2 values: 1 NaN, first at [1]
      larger than its tensors:
        weight  8,000 bytes in the file, of which 24 are its: a view is saved with all of the memory
                that it looks into
    <BLANKLINE>
      hint: copy before saving: torch.save({k: v.clone() for k, v in model.state_dict().items()},
            path)
    >>> folder.cleanup()
    """
    __tracebackhide__ = True
    contents = read_contents(path, key)
    inventory = Inventory(contents.title)
    inventory.named = dict(contents.tensors)
    raise_if([*not_publishable(contents, inventory), *nothing_there(contents)], inventory)


def _by_every_key(taken: Checkpoint) -> Inventory:
    """Return the checkpoint's tensors by the names they were given and by the keys they had."""
    if not taken.origins:
        return taken.tensors
    every = Inventory(taken.tensors.title)
    named = taken.tensors.named
    every.named = {taken.origins[name]: tensor for name, tensor in named.items()} | named
    return every


@contextmanager
def _undisturbed(inventory: Inventory) -> Iterator[None]:
    """Put back modes and random states that a model's own code may change."""
    devices = {entry.tensor.device for entry in inventory.entries if entry.tensor is not None}
    with Undo() as undo, undo:
        keep_modes(undo, {device.type for device in devices})
        undo.push(keep_random_states(devices))
        yield


def _listed(what: str, patterns: Any) -> Sequence[Pattern]:
    if isinstance(patterns, (str, type)):
        shown = patterns.__name__ if isinstance(patterns, type) else repr(patterns)
        kind = "class" if isinstance(patterns, type) else "string"
        raise ParamCheckUsageError(
            f"{what} is a list of patterns, got the {kind} {shown}; did you mean [{shown}]?"
        )
    return list(patterns)


def _saves(model: nn.Module) -> bool:
    """Whether a module without parameters and persistent buffers saves something all the same."""
    try:
        return bool(model.state_dict())
    except Exception:
        return True  # what is wrong with saving is for the round trip to say

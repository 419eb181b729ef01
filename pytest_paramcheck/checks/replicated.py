"""What ranks hold of the same names -> how their copies differ: the same list on each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import xxhash
from torch import Tensor

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import a_or_an
from ..parameters.running.gradstate import grad_of, is_parameter
from ..parameters.subject.inventory import Entry
from ..parameters.tensors.call import exchange, ranks_text, this_rank
from ..parameters.tensors.content import no_values
from ..parameters.tensors.describe import dtype_text, shape_text
from ..parameters.tensors.replicas import (
    Place,
    Replica,
    bits_digest,
    of_piece,
    piece_of,
    place_of,
)
from ..parameters.tensors.sharded import is_partial, local_of
from .same_values import difference_text

ASPECTS = ("values", "grads", "flags")
#: Tensors of which it is said where and by how much they differ.
SHOWN = 20

Told = Mapping[int, Mapping[str, Replica]]


def parse_only(only: object) -> frozenset[str]:
    """Return what ``only`` names, or raise :class:`ParamCheckUsageError` for what is none."""
    asked = (only,) if isinstance(only, str) else only
    if not isinstance(asked, (tuple, list, set, frozenset)) or not asked:
        raise ParamCheckUsageError(f"only={only!r}: name one or more of {', '.join(ASPECTS)}")
    for aspect in asked:
        if aspect not in ASPECTS:
            raise ParamCheckUsageError(f"only={only!r}: {aspect!r} is none of {', '.join(ASPECTS)}")
    return frozenset(asked)


def not_replicated(entries: Sequence[Entry], only: frozenset[str]) -> list[Finding]:
    """Find what differs between the copies that ranks hold of the same names.

    Told first is one digest for each shard of everything; the rest only where those differ.
    """
    mine = {entry.name: _replica(entry, only) for entry in entries}
    if _agree(exchange(_summary(mine.values()))):
        return []
    told: Told = exchange(mine)
    findings = [*_one_sided(told), *_other_order(told)]
    common = [name for name in next(iter(told.values())) if _everywhere(told, name)]
    findings += _fields(told, common)
    by_name = {entry.name: entry for entry in entries}
    alike = [name for name in common if not _shape_or_dtype(told, name)]
    if "values" in only:
        wrong = {name: _groups(told, name, _values) for name in alike}
        findings += _differing("differs between ranks", told, wrong, by_name, _tensor)
    if "grads" in only:
        findings += _gradients(told, alike, by_name)
    return findings


def _replica(entry: Entry, only: frozenset[str]) -> Replica:
    tensor = entry.tensor
    if tensor is None:
        return Replica(tuple(entry.names), "None", "", (), None, None, None)
    grad = grad_of(entry) if is_parameter(entry) and "grads" in only else None
    for held, what in ((tensor, ""), (grad, "the gradient of ")):
        if held is not None and is_partial(held) and not only <= {"flags"}:
            raise ParamCheckUsageError(
                f"{what}{entry.name} holds partial sums, which nobody has added up: "
                f"redistribute it first"
            )
    return Replica(
        tuple(entry.names),
        shape_text(tensor),
        dtype_text(tensor),
        place_of(tensor),
        tensor.requires_grad if "flags" in only else None,
        _digest(entry.name, tensor) if "values" in only else None,
        b"" if grad is None else _digest(f"the gradient of {entry.name}", grad),
        () if grad is None else place_of(grad),
    )


def _digest(name: str, tensor: Tensor) -> bytes:
    try:
        return bits_digest(tensor)
    except Exception as error:  # a tensor class raises what it likes
        if reason := no_values(tensor):
            raise ParamCheckUsageError(
                f"{name}: {reason}; its copies cannot be compared "
                f'(only="flags" asks for names, shapes, dtypes and requires_grad)'
            ) from None
        raise ParamCheckUsageError(
            f"{name}: {a_or_an(type(tensor).__name__)} has no bits that can be compared ({error})"
        ) from None


def _summary(replicas: Iterable[Replica]) -> dict[Place, bytes]:
    """One digest of what is the same for all, and one of all that lies at one place."""
    structure = xxhash.xxh3_128()
    totals: dict[Place, xxhash.xxh3_128] = {_STRUCTURE: structure}
    for one in replicas:
        flags = (one.names, one.shape, one.dtype, one.requires_grad, one.sharded, one.grad == b"")
        structure.update(repr(flags).encode())
        place = (one.place, one.grad_place)
        total = totals.setdefault(place, xxhash.xxh3_128())
        total.update(repr((one.names, one.values, one.grad)).encode())
    return {place: total.digest() for place, total in totals.items()}


_STRUCTURE = ("structure",)


def _agree(heard: Mapping[int, Mapping[Place, bytes]]) -> bool:
    seen: dict[Place, bytes] = {}
    for said in heard.values():
        for place, digest in said.items():
            if seen.setdefault(place, digest) != digest:
                return False
    return True


def _everywhere(told: Told, name: str) -> bool:
    return all(name in said for said in told.values())


def _one_sided(told: Told) -> list[Finding]:
    holders: dict[str, list[int]] = {}
    for rank, said in told.items():
        for name in said:
            holders.setdefault(name, []).append(rank)
    return [
        Finding(told[ranks[0]][name].names, f"only on {ranks_text(ranks)}")
        for name, ranks in holders.items()
        if len(ranks) < len(told)
    ]


def _other_order(told: Told) -> list[Finding]:
    """Find the first names that ranks have in another order: optimizers and buckets go by it."""
    (first, *rest) = told.items()
    order = [name for name in first[1] if _everywhere(told, name)]
    common = set(order)
    for rank, said in rest:
        own = [name for name in said if name in common]
        for name, other in zip(order, own, strict=True):
            if name != other:
                found = f"{name} on {ranks_text([first[0]])} where {ranks_text([rank])} has {other}"
                return [Finding((name, other), "other order", found=found)]
    return []


def _by(told: Told, name: str, what: Callable[[Replica], object]) -> dict[object, list[int]]:
    groups: dict[object, list[int]] = {}
    for rank, said in told.items():
        groups.setdefault(what(said[name]), []).append(rank)
    return groups


def _shape_or_dtype(told: Told, name: str) -> bool:
    return len(_by(told, name, lambda one: (one.shape, one.dtype))) > 1


def _fields(told: Told, names: Iterable[str]) -> list[Finding]:
    findings = []
    for name in names:
        for problem, what in (
            ("other shape", lambda one: one.shape),
            ("other dtype", lambda one: one.dtype),
            ("requires_grad differs", lambda one: one.requires_grad),
            ("other placement", lambda one: one.sharded),
            ("other names", lambda one: " = ".join(one.names)),
        ):
            groups = _by(told, name, what)
            if len(groups) > 1:
                found = ", ".join(f"{value} on {ranks_text(own)}" for value, own in groups.items())
                names_of = next(iter(told.values()))[name].names
                findings.append(Finding(names_of, problem, found=found))
    return findings


#: The copies of one place that differ: reference ranks first, then groups of other ranks.
Groups = list[list[list[int]]]


def _values(one: Replica) -> tuple[Place, object]:
    return one.place, one.values


def _grads(one: Replica) -> tuple[Place, object]:
    return (one.place, one.grad_place), one.grad


def _groups(told: Told, name: str, what: Callable[[Replica], tuple[Place, object]]) -> Groups:
    """Group the ranks of each place by what they hold; the places where all agree left out.

    The largest group is the reference; of two the one with the lowest rank.
    """
    places: dict[Place, dict[object, list[int]]] = {}
    for rank, said in told.items():
        place, digest = what(said[name])
        places.setdefault(place, {}).setdefault(digest, []).append(rank)
    return [
        sorted(groups.values(), key=lambda ranks: (-len(ranks), ranks[0]))
        for groups in places.values()
        if len(groups) > 1
    ]


def _tensor(entry: Entry) -> Tensor | None:
    return entry.tensor


def _differing(
    problem: str,
    told: Told,
    wrong: Mapping[str, Groups],
    by_name: Mapping[str, Entry],
    held: Callable[[Entry], Tensor | None],
) -> list[Finding]:
    """One finding for each name whose copies differ; of the first twenty, where and by how much."""
    names = [name for name, groups in wrong.items() if groups]
    if not names:
        return []
    texts = _by_how_much({name: wrong[name] for name in names[:SHOWN]}, by_name, held)
    replicas = next(iter(told.values()))
    findings = []
    for name in names:
        said = []
        for reference, *others in wrong[name]:
            for ranks in others:
                text = texts.get((name, ranks[0]), "differs")
                said.append(f"{text}: {ranks_text(ranks)} from {ranks_text(reference)}")
        findings.append(Finding(replicas[name].names, problem, found="; ".join(said)))
    return findings


def _by_how_much(
    wrong: Mapping[str, Groups],
    by_name: Mapping[str, Entry],
    held: Callable[[Entry], Tensor | None],
) -> dict[tuple[str, int], str]:
    """Say by name and rank how a copy differs from the reference, which tells its values.

    Two exchanges: the references' values, and what others found comparing theirs.
    """
    pieces: dict[tuple[str, int], bytes] = {}
    for name, tensor in _held(wrong, by_name, held):
        for reference, *_ in wrong[name]:
            piece = piece_of(tensor)
            if piece is not None:
                pieces[name, reference[0]] = piece
    heard = exchange(pieces)
    found: dict[tuple[str, int], str] = {}
    me = this_rank()
    for name, tensor in _held(wrong, by_name, held):
        for reference, *others in wrong[name]:
            piece = heard[reference[0]].get((name, reference[0]))
            if piece is None:
                continue
            for ranks in others:
                if ranks[0] == me:
                    found[name, me] = _text(tensor, piece)
    merged: dict[tuple[str, int], str] = {}
    for said in exchange(found).values():
        merged |= said
    return {key: text for key, text in merged.items() if text}


def _held(
    wrong: Mapping[str, Groups],
    by_name: Mapping[str, Entry],
    held: Callable[[Entry], Tensor | None],
) -> Iterable[tuple[str, Tensor]]:
    for name in wrong:
        tensor = held(by_name[name])
        if tensor is not None:
            yield name, tensor


def _text(tensor: Tensor, piece: bytes) -> str:
    local = local_of(tensor).detach().cpu()
    with torch.no_grad():
        return difference_text(local, of_piece(piece, local), sides=_SIDES, whole=tensor)


_SIDES = ("here", "in the other")


def _gradients(told: Told, names: Sequence[str], by_name: Mapping[str, Entry]) -> list[Finding]:
    findings = []
    wrong: dict[str, Groups] = {}
    for name in names:
        without = [rank for rank, said in told.items() if said[name].grad == b""]
        if without and len(without) < len(told):
            names_of = next(iter(told.values()))[name].names
            found = f"none on {ranks_text(without)}"
            findings.append(Finding(names_of, "gradient on some ranks only", found=found))
        elif not without:
            wrong[name] = _groups(told, name, _grads)
    return findings + _differing(
        "gradient differs between ranks",
        told,
        wrong,
        by_name,
        lambda entry: grad_of(entry) if is_parameter(entry) else None,
    )

"""What a model promises by what its modules are, against what it was built with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..messages.findings import Finding
from ..messages.wording import plural
from ..parameters.subject.conventions import PaddedRow, PromisedTie, RepeatedModule
from ..parameters.subject.inventory import Inventory
from ..parameters.subject.ties import Ties
from ..parameters.tensors.content import no_values
from .structure import is_device
from .ties import not_tied

#: Fewer values have both signs by chance.
_FEW = 8
#: So far from a half the share of negative values may be of a draw around zero, beside what
#: chance adds. RepVGG draws around 0.1, as wide: 0.16 of its values are negative.
_OFF = 0.15


def written_padding(rows: Iterable[PaddedRow]) -> list[Finding]:
    """Find padding rows that do not start as zeros: no gradient will ever move them."""
    findings = []
    for padded in rows:
        if no_values(padded.tensor) or not -len(padded.tensor) <= padded.row < len(padded.tensor):
            continue
        row = padded.tensor.detach()[padded.row]
        if bool((row != 0).any()):
            findings.append(
                Finding(
                    (padded.name,),
                    "padding row is not zero",
                    found=f"row {padded.row} (padding_idx): largest value "
                    f"{float(row.abs().max()):.3g}",
                    why="an initializer drew it; it gets no gradient and stays so",
                    hint=f"zero it after the initialization: weight[{padded.row}].zero_()",
                )
            )
    return findings


def scales_around_zero(scales: Mapping[str, Tensor]) -> list[Finding]:
    """Find scales of norms that are drawn around zero: half of the features are negated.

    Told from all scales with both signs together: a short one may have any share of them.
    """
    signs: dict[str, tuple[int, int]] = {}
    for name, scale in scales.items():
        if not no_values(scale) and scale.numel() >= _FEW:
            negative, positive = int((scale < 0).sum()), int((scale > 0).sum())
            if negative and positive:
                signs[name] = negative, scale.numel()
    total = sum(size for _, size in signs.values()) or 1
    share = sum(negative for negative, _ in signs.values()) / total
    if abs(share - 0.5) > _OFF + 0.5 / total**0.5:
        return []
    return [
        Finding(
            (name,),
            "scale of a norm drawn around zero",
            found=f"{negative:,} of {plural(size, 'value')} negative",
            hint="leave norms out where weights are initialized: they start as ones",
        )
        for name, (negative, size) in signs.items()
    ]


def broken_promise(inventory: Inventory, promise: PromisedTie) -> list[Finding]:
    """Find a head that is not tied though its config says so, or tied though it says not.

    Of two embeddings a head may be tied to the other one, a decoder's.
    """
    ties = Ties(inventory)
    one, other = inventory.by_name[promise.embedding], inventory.by_name[promise.head]
    says = f"config.tie_word_embeddings is {promise.tied}"
    if promise.tied and one is not other and len(other.names) == 1:
        found = not_tied(ties, [promise.embedding, promise.head], "not tied as the config says")
        return [replace(f, why=f"{f.why.rstrip('.')}; {says}.") for f in found]
    if not promise.tied and one is other:
        return [
            Finding(
                (promise.embedding, promise.head),
                "tied though the config says not",
                found="one Parameter",
                why=says,
                hint="give the head a weight of its own, or set config.tie_word_embeddings = True",
            )
        ]
    return []


def repeated_layers(repeated: Iterable[RepeatedModule]) -> list[Finding]:
    """Say once of each layer that is repeated that it is one."""
    return [
        Finding(
            one.places,
            "one module in several places",
            found=f"one {one.kind}, trained as one",
            hint="build each anew, [Layer() for _ in range(n)]; if one layer is intended: "
            "ModelCase(ties=[...])",
        )
        for one in repeated
    ]


def off_default_device(inventory: Inventory, device: torch.device) -> list[Finding]:
    """Find what a factory built on another device than the default one."""
    return [
        Finding(
            tuple(entry.names),
            "not on the default device",
            expected=str(device),
            found=str(entry.tensor.device),
            hint="make it with a function that follows the default device (torch.ones, "
            "torch.empty; not torch.Tensor(n)), and without device=",
        )
        for entry in inventory.entries
        if entry.tensor is not None and not is_device(entry.tensor.device, device)
    ]


def not_reset(
    name: str, kind: str, left: Mapping[str, int], sizes: Mapping[str, int]
) -> list[Finding]:
    """Say what ``reset_parameters()`` of a module left as it was."""
    whose = f"{name}.reset_parameters()" if name else f"reset_parameters() of {kind}"
    return [
        Finding(
            (entry,),
            "not reset",
            found="as it was"
            if count == sizes[entry]
            else f"{count:,} of {plural(sizes[entry], 'value')} as they were",
            why=f"{whose} leaves it",
            hint="let it write every parameter that trains: a model built on meta has nothing else",
        )
        for entry, count in left.items()
    ]

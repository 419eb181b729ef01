"""Initial values against the distributions they should come from.

The false-alarm rate holds for a whole call: each of the tests that are made gets an equal
share of it (Bonferroni), so that one call in a million alarms on values that are right. What is
exact (constants, supports, orthogonality, padding rows, copies) costs nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..init import Constant, Distribution, FanDistribution, Normal, Orthogonal, TruncNormal, Uniform
from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import fold_rows, plural
from ..parameters.subject.declared import Declared
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.tensors.content import bits, no_values
from ..parameters.tensors.describe import dtype_name, kind_of
from ..parameters.tensors.memory import inner_tensors
from ..parameters.tensors.sharded import (
    index_in_whole,
    is_dtensor,
    is_partial,
    local_of,
    mesh_of,
    offset_of,
)
from .orthogonality import not_orthogonal
from .repeats import equal_slices, low_rank
from .statistics import (
    Outcome,
    Test,
    chance_of_one,
    failed,
    number_of_tests,
    sample_tests,
)

#: Chance that one call on values drawn as expected alarms.
FALSE_ALARM_RATE = 1e-6


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The values of one entry that a test looks at, and what they should come from."""

    names: tuple[str, ...]
    entry: Entry
    values: Tensor
    shape: tuple[int, ...]
    said: Distribution
    meant: Distribution
    padding: int | None = None


def wrong_init(
    inventory: Inventory,
    expected: Sequence[Declared[Distribution]],
    rate: float = FALSE_ALARM_RATE,
) -> list[Finding]:
    """Find the entries that do not look drawn from their distribution, and copies among them."""
    with torch.no_grad():
        drawn, findings = _prepare(inventory, expected)
        if not any(math.prod(item.shape) for item in drawn):
            raise ParamCheckUsageError(
                f"all parameters selected in {inventory.title} are empty: there is nothing to check"
            )
        tests = sum(
            number_of_tests(item.meant)
            for item in drawn
            if isinstance(item.meant, (Normal, TruncNormal, Uniform)) and item.values.numel()
        )
        tests *= max((_ranks(item.entry) for item in drawn), default=1)  # each tests its shards
        modules = dict(inventory.modules)
        for item in drawn:
            if item.values.numel() == 0:
                continue
            if isinstance(item.meant, Constant):
                finding = _constant(item, item.meant)
            elif isinstance(item.meant, Orthogonal):
                finding = _orthogonal(item, item.meant)
            else:
                finding = _random(modules, item, rate / tests)
            if finding is not None:
                findings.append(finding)
        return findings + _copies(drawn)


def _prepare(
    inventory: Inventory, expected: Sequence[Declared[Distribution]]
) -> tuple[list[_Drawn], list[Finding]]:
    padded = _padding_rows(inventory)
    drawn, findings = [], []
    for item in expected:
        entry, said = item.entry, item.value
        tensor = entry.tensor
        if tensor is None:
            continue
        if reason := no_values(tensor):
            raise ParamCheckUsageError(f"{entry.name}: {reason}; its values cannot be checked")
        values = local_of(tensor).detach()
        if is_partial(tensor):
            raise ParamCheckUsageError(
                f"{entry.name} holds partial sums, which nobody has added up: redistribute it first"
            )
        if values.layout is not torch.strided:
            values = values.to_dense()
        elif inner_tensors(values) is not None:
            raise ParamCheckUsageError(
                f"{entry.name}: the values of a {kind_of(tensor)} are spread over other tensors; "
                f"check the module before it is sharded, quantized or wrapped"
            )
        if values.is_quantized:
            values = values.dequantize()
        shape = tuple(tensor.shape)  # of a shard the fans are those of the whole
        meant = said.for_shape(shape) if values.numel() else said
        if isinstance(meant, Orthogonal) and mesh_of(tensor) is not None:
            raise ParamCheckUsageError(
                f"{entry.name}: whether a sharded matrix is orthogonal no shard can say: "
                f"pass {{{entry.name!r}: parameter.full_tensor()}}"
            )
        random = not isinstance(meant, (Constant, Orthogonal))
        if random and values.is_complex():
            if not isinstance(meant, Normal) or meant.mean:
                raise ParamCheckUsageError(
                    f"{entry.name}: {said.describe()} of a complex parameter is not defined here; "
                    f"normal(0, std) is"
                )
            # torch's complex normal has half of its variance in each part.
            meant = Normal(0.0, meant.std * 0.5**0.5)
            values = torch.view_as_real(values.resolve_conj())
        elif not isinstance(meant, Constant) and not values.dtype.is_floating_point:
            raise ParamCheckUsageError(
                f"{entry.name} is {dtype_name(values.dtype)}: "
                f"{said.describe()} is for floating dtypes"
            )
        padding = padded.get(id(tensor))
        row = _row_here(tensor, padding)
        if row is not None and random:
            if bool(_comparable(values[row]).ne(0).any()):
                findings.append(
                    Finding(
                        item.names,
                        "padding row is not zero",
                        found=f"row {padding} (padding_idx)",
                        why="it gets no gradient, so it stays what it is",
                        hint=f"after the initialisation: weight[{padding}].zero_() under no_grad",
                    )
                )
            values = torch.cat([values[:row], values[row + 1 :]])
        left_out = row if random else None
        drawn.append(_Drawn(item.names, entry, values, shape, said, meant, left_out))
    return drawn, findings


def _row_here(tensor: Tensor, row: int | None) -> int | None:
    """Return which row of this rank's shard a row of the whole tensor is; None for another's."""
    if row is None or not is_dtensor(tensor):
        return row
    own = row - offset_of(tensor)[0]
    local = local_of(tensor)
    return own if local.numel() and 0 <= own < local.shape[0] else None


def _ranks(entry: Entry) -> int:
    mesh = mesh_of(entry.tensor)
    return 1 if mesh is None else int(mesh.size())


def _padding_rows(inventory: Inventory) -> dict[int, int]:
    """The padding row of each embedding weight, by the weight's id."""
    return {
        id(module._parameters.get("weight")): module.padding_idx
        for _, module in inventory.modules
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.padding_idx is not None
    }


def _comparable(values: Tensor) -> Tensor:
    if values.element_size() == 1 and values.dtype.is_floating_point:
        return values.float()
    return values


def _constant(item: _Drawn, meant: Constant) -> Finding | None:
    values = _comparable(item.values)
    if not (values.dtype.is_floating_point or values.dtype.is_complex):
        wanted = torch.tensor(meant.value, device=values.device)
    else:
        wanted = torch.tensor(meant.value, dtype=item.values.dtype, device="cpu")
        wanted = _comparable(wanted).to(values.device)
    wrong = values.ne(wanted)
    count = int(wrong.sum())
    if not count:
        return None
    where = wrong.nonzero()[0].tolist()
    first = values[tuple(where)].item()
    if item.entry.tensor is not None and item.padding is None:
        where = index_in_whole(item.entry.tensor, where)
    shown = f"{first:.4g}" if isinstance(first, float) else str(first)
    return Finding(
        item.names,
        "wrong initial values",
        expected=item.said.describe(),
        found=f"{count:,} of {plural(values.numel(), 'value')} off, first {shown} at {where}",
    )


def _orthogonal(item: _Drawn, meant: Orthogonal) -> Finding | None:
    found = not_orthogonal(_comparable(item.values), meant.gain, item.values.dtype)
    if not found:
        return None
    return Finding(item.names, "wrong initial values", expected=item.said.describe(), found=found)


def _random(modules: Mapping[str, nn.Module], item: _Drawn, share: float) -> Finding | None:
    meant = item.meant
    if not isinstance(meant, (Normal, TruncNormal, Uniform)):
        raise ParamCheckUsageError(f"{item.said!r} is no distribution of pytest_paramcheck.init")
    flat = item.values.reshape(-1)
    wrong = failed(sample_tests(flat, meant), share, flat.numel())
    pair = equal_slices(item.values, chance_of_one(item.values, meant))
    if pair is not None and not any(outcome.what is Test.REPEATS for outcome in wrong):
        wrong.insert(0, Outcome(Test.REPEATS, 0.0, _slices_text(item, *pair)))
    if not wrong and (rank := low_rank(item.values, _mean(meant))) is not None:
        text = f"rank {rank} among 64 rows and 64 columns, where draws have 64"
        wrong = [Outcome(Test.REPEATS, 0.0, text)]
    if not wrong:
        return None
    expected = item.said.describe()
    if meant != item.said:
        expected += f" = {meant.describe()} here"
        if isinstance(item.said, FanDistribution):
            expected += f" ({item.said.fans_text(item.shape)})"
    return Finding(
        item.names,
        "wrong initial values",
        expected=expected,
        found=f"{', '.join(outcome.text for outcome in wrong)}{_over(wrong, flat.numel())}",
        why=_probability(wrong),
        hint=_default_hint(modules, item, flat) or _fans_hint(item, flat),
    )


def _mean(of: Normal | TruncNormal | Uniform) -> float:
    return (of.a + of.b) / 2 if isinstance(of, Uniform) else of.mean


def _over(wrong: Sequence[Outcome], count: int) -> str:
    # Who says how many repeat, or where one lies outside, says it all.
    figures = any(outcome.what not in (Test.REPEATS, Test.SUPPORT) for outcome in wrong)
    return f", over {plural(count, 'value')}" if figures else ""


def _slices_text(item: _Drawn, dimension: int, i: int, j: int) -> str:
    if dimension == 0 and item.padding is not None:
        i, j = (number + (number >= item.padding) for number in (i, j))
    if item.values.dim() == 2:
        return f"{('rows', 'columns')[dimension]} {i} and {j} are equal bit for bit"
    return f"[{':, ' * dimension}{i}] and [{':, ' * dimension}{j}] are equal bit for bit"


def _fans_hint(item: _Drawn, flat: Tensor) -> str:
    """Say so where the values fit the fans of another layout than torch's."""
    if not isinstance(item.said, FanDistribution) or len(item.shape) < 2 or flat.numel() < 16:
        return ""
    rows, columns, *field = item.shape
    layouts = [((columns, rows, *field), "of a weight stored (in, out), used as x @ w")]
    layouts += [
        ((rows // several, columns, *field), f"of each of {several} weights stacked in this one")
        for several in (2, 3, 4)
        if rows % several == 0
    ]
    for shape, what in layouts:
        meant = item.said.for_shape(shape)
        if meant == item.meant or not isinstance(meant, (Normal, Uniform)):
            continue
        if min(outcome.p for outcome in sample_tests(flat, meant)) >= 1e-3:
            return (
                f"they fit {item.said.fans_text(shape)}, {what}: if it is one, "
                f"declare init.{meant.describe()}"
            )
    return ""


def _probability(wrong: Sequence[Outcome]) -> str:
    if any(outcome.p == 0.0 and outcome.what in (Test.SUPPORT, Test.REPEATS) for outcome in wrong):
        return "impossible"
    p = min(outcome.p for outcome in wrong)
    return "probability below 1e-12" if p < 1e-12 else f"probability {p:.1g}"


def _default_hint(modules: Mapping[str, nn.Module], item: _Drawn, flat: Tensor) -> str:
    """Say so where the values look like what torch's own constructor draws."""
    owner = item.names[0].rpartition(".")[0]
    module = modules.get(owner)
    weight = getattr(module, "weight", None)
    usual: Normal | Uniform
    if isinstance(module, nn.Embedding):
        usual = Normal(0.0, 1.0)
    elif isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) and isinstance(weight, Tensor):
        bound = max(1, math.prod(weight.shape[1:])) ** -0.5
        usual = Uniform(-bound, bound)
    else:
        return ""
    if usual == item.meant or flat.numel() < 16:
        return ""
    if min(outcome.p for outcome in sample_tests(flat, usual)) < 1e-3:
        return ""
    kind = type(module).__name__
    return f"these look like the values nn.{kind} starts from: your initialisation did not run"


def _copies(drawn: Sequence[_Drawn]) -> list[Finding]:
    """Find layers that start identical: drawn values never agree in 64 random bits."""
    groups: dict[tuple[object, ...], list[_Drawn]] = {}
    for item in {item.entry: item for item in drawn}.values():
        if isinstance(item.meant, Constant) or not item.values.dtype.is_floating_point:
            continue
        mantissa = -torch.finfo(item.values.dtype).eps
        digits = round(-torch.log2(torch.tensor(-mantissa, device="cpu")).item()) + 1
        if item.values.numel() * digits < 64:
            continue
        head = item.values.reshape(-1)[:16].cpu()
        key = (item.shape, item.values.dtype, tuple(bits(head)[0].tolist()))
        groups.setdefault(key, []).append(item)
    findings = []
    for group in groups.values():
        while len(group) > 1:
            first, *rest = group
            same = [item for item in rest if _equal(first.values, item.values)]
            if same:
                names = tuple(name for item in (first, *same) for name in item.names[:1])
                findings.append(
                    Finding(
                        names,
                        "identical initial values",
                        rows=fold_rows((name, first.said.describe()) for name in names),
                        why="they hold the same values bit for bit, in memory of their own",
                        hint=(
                            "draw each by itself: a layer copied with deepcopy is initialised again"
                        ),
                        everywhere=True,
                    )
                )
            group = [item for item in rest if all(item is not other for other in same)]
    return findings


def _equal(a: Tensor, b: Tensor) -> bool:
    return all(torch.equal(x, y.to(x.device)) for x, y in zip(bits(a), bits(b), strict=True))

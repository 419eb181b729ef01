"""Initial values against the distributions they should come from.

The false-alarm rate holds for a whole call: each of the tests that are made gets an equal
share of it (Bonferroni), so that one call in a million alarms on values that are right. What is
exact (constants, supports, orthogonality, padding rows, copies) costs nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..init import (
    Constant,
    Distribution,
    FanDistribution,
    Like,
    Normal,
    Orthogonal,
    TruncNormal,
    Uniform,
)
from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.folding import fold_rows
from ..messages.wording import plural
from ..parameters.subject.declared import Declared
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.tensors.content import bits
from ..parameters.tensors.sharded import index_in_whole
from .init_like import Compared, Draws, unlike
from .init_values import Drawn, comparable, prepare, ranks_of
from .orthogonality import not_orthogonal
from .readable import plain_values
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


def wrong_init(
    inventory: Inventory,
    expected: Sequence[Declared[Distribution]],
    rate: float = FALSE_ALARM_RATE,
) -> list[Finding]:
    """Find the entries that do not look drawn from their distribution, and copies among them."""
    with torch.no_grad():
        drawn, findings = prepare(inventory, expected)
        if not any(math.prod(item.shape) for item in drawn):
            raise ParamCheckUsageError(
                f"all parameters selected in {inventory.title} are empty: there is nothing to check"
            )
        tests = sum(
            number_of_tests(item.meant)
            for item in drawn
            if isinstance(item.meant, (Normal, TruncNormal, Uniform)) and item.values.numel()
        )
        tests += sum(isinstance(item.meant, Like) for item in drawn)
        tests *= max((ranks_of(item.entry) for item in drawn), default=1)  # each tests its shards
        modules = inventory.module_at
        constant: set[Entry] = set()
        for item in drawn:
            if item.values.numel() == 0:
                continue
            if isinstance(item.meant, Like):
                compared = _compared(item, item.meant, rate / tests)
                if compared.constant:
                    constant.add(item.entry)
                finding = _unlike(modules, item, compared)
            elif isinstance(item.meant, Constant):
                finding = _constant(modules, item, item.meant)
            elif isinstance(item.meant, Orthogonal):
                finding = _orthogonal(item, item.meant)
            else:
                finding = _random(modules, item, rate / tests)
            if finding is not None:
                findings.append(finding)
        return findings + _copies([item for item in drawn if item.entry not in constant])


def _compared(item: Drawn, said: Like, share: float) -> Compared:
    tensor, pick = item.entry.tensor, item.pick
    if tensor is None or pick is None:
        return Compared()
    whole = plain_values(item.entry.name, tensor)
    return unlike(item.values, Draws(item.names[0], said, whole, pick), share)


def _unlike(modules: Mapping[str, nn.Module], item: Drawn, compared: Compared) -> Finding | None:
    if not compared.text:
        return None
    why = "probability below 1e-12" if compared.p < 1e-12 else f"probability {compared.p:.1g}"
    return Finding(
        item.names,
        "wrong initial values",
        expected=item.said.describe(),
        found=compared.text,
        why="impossible" if compared.p == 0 else why,
        hint=_default_hint(modules, item, item.values.reshape(-1)),
    )


def _constant(modules: Mapping[str, nn.Module], item: Drawn, meant: Constant) -> Finding | None:
    values = comparable(item.values)
    if not (values.dtype.is_floating_point or values.dtype.is_complex):
        wanted = torch.tensor(meant.value, device=values.device)
    else:
        wanted = torch.tensor(meant.value, dtype=item.values.dtype, device="cpu")
        wanted = comparable(wanted).to(values.device)
    wrong = values.ne(wanted)
    count = int(wrong.sum())
    if not count:
        return None
    where = wrong.nonzero()[0].tolist()
    first = values[tuple(where)].item()
    if item.entry.tensor is not None and item.padding is None:
        where = index_in_whole(item.entry.tensor, where)
    shown = f"{first:.4g}" if isinstance(first, float) else str(first)
    found = f"{count:,} of {plural(values.numel(), 'value')} off, first {shown} at {where}"
    if bool((values == values.reshape(-1)[0]).all()):
        found = f"all {values.numel():,} values are {shown}" if values.numel() > 1 else shown
    hint = _default_hint(modules, item, values.reshape(-1)) if values.is_floating_point() else ""
    return Finding(item.names, "wrong initial values", item.said.describe(), found, hint=hint)


def _orthogonal(item: Drawn, meant: Orthogonal) -> Finding | None:
    each = _one_by_one(item.values, meant.stacked)
    for number, values in enumerate(each):
        found = not_orthogonal(comparable(values), meant.gain, item.values.dtype)
        if not found:
            same = [n for n in range(number) if torch.equal(each[n], values)]
            found = f"it is equal to number {same[0]} bit for bit" if same else ""
        if found:
            where = f"number {number} of {meant.stacked}: " if meant.stacked > 1 else ""
            expected = item.said.describe()
            return Finding(
                item.names, "wrong initial values", expected=expected, found=where + found
            )
    return None


def _one_by_one(values: Tensor, stacked: int) -> Sequence[Tensor]:
    """Return the weights that are stacked along the first dimension, one by one."""
    if stacked == 1:
        return [values]
    if len(values) == stacked and values.dim() > 2:
        return values.unbind(0)
    return values.chunk(stacked)


def _random(modules: Mapping[str, nn.Module], item: Drawn, share: float) -> Finding | None:
    meant = item.meant
    if not isinstance(meant, (Normal, TruncNormal, Uniform)):
        raise ParamCheckUsageError(f"{item.said!r} is not a distribution of pytest_paramcheck.init")
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


def _slices_text(item: Drawn, dimension: int, i: int, j: int) -> str:
    if dimension == 0 and item.padding is not None:
        i, j = (number + (number >= item.padding) for number in (i, j))
    if item.values.dim() == 2:
        return f"{('rows', 'columns')[dimension]} {i} and {j} are equal bit for bit"
    return f"[{':, ' * dimension}{i}] and [{':, ' * dimension}{j}] are equal bit for bit"


def _fans_hint(item: Drawn, flat: Tensor) -> str:
    """Say so where the values fit the fans of another layout than torch's."""
    if not isinstance(item.said, FanDistribution) or len(item.shape) < 2 or flat.numel() < 16:
        return ""
    said = item.said
    rows, columns, *inside = item.shape
    fan_in, fan_out = rows * math.prod(inside), columns * math.prod(inside)
    if said.stacked > 1:
        return ""
    if said.fan_in or said.fan_out:
        return _drawn_for_torch_s_layout(said, item, flat)
    given = {name: {"fan_in": fan_in, "fan_out": fan_out}[name] for name in said.needed()}
    layouts = [(replace(said, **given), "of a weight stored (in, out), used as x @ w")]
    layouts += [
        (replace(said, stacked=several), f"of each of {several} weights stacked in this one")
        for several in dict.fromkeys((2, 3, 4, rows))
        if several > 1 and rows % several == 0 and (several != rows or inside)
    ]
    for declared, what in layouts:
        meant = declared.for_shape(item.shape)
        if meant == item.meant or not isinstance(meant, (Normal, Uniform)):
            continue
        if min(outcome.p for outcome in sample_tests(flat, meant)) >= 1e-3:
            return (
                f"they fit {declared.fans_text(item.shape)}, {what}: if it is one, "
                f"declare init.{declared.describe()}"
            )
    return ""


def _drawn_for_torch_s_layout(said: FanDistribution, item: Drawn, flat: Tensor) -> str:
    """Say so where fans are declared, and the values fit those that torch counts."""
    plain = replace(said, fan_in=None, fan_out=None)
    meant = plain.for_shape(item.shape)
    if meant == item.meant or not isinstance(meant, (Normal, Uniform)):
        return ""
    if min(outcome.p for outcome in sample_tests(flat, meant)) < 1e-3:
        return ""
    return (
        f"they fit {plain.fans_text(item.shape)}, which torch counts for a weight stored "
        f"(out, in): draw a weight used as x @ w through its transpose, nn.init.*_(weight.t())"
    )


def _probability(wrong: Sequence[Outcome]) -> str:
    if any(outcome.p == 0.0 and outcome.what in (Test.SUPPORT, Test.REPEATS) for outcome in wrong):
        return "impossible"
    p = min(outcome.p for outcome in wrong)
    return "probability below 1e-12" if p < 1e-12 else f"probability {p:.1g}"


def _default_hint(modules: Mapping[str, nn.Module], item: Drawn, flat: Tensor) -> str:
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
    return f"these look like the values nn.{kind} starts from: your initialization did not run"


def _copies(drawn: Sequence[Drawn]) -> list[Finding]:
    """Find layers that start identical: drawn values never agree in 64 random bits."""
    groups: dict[tuple[object, ...], list[Drawn]] = {}
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
                            "initialize each layer separately, also those copied with deepcopy()"
                        ),
                        everywhere=True,
                    )
                )
            group = [item for item in rest if all(item is not other for other in same)]
    return findings


def _equal(a: Tensor, b: Tensor) -> bool:
    return all(torch.equal(x, y.to(x.device)) for x, y in zip(bits(a), bits(b), strict=True))

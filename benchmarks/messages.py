"""What the message of a failure of many parameters costs: python benchmarks/messages.py

Against one plain line for each finding, which fits no screen. The names of a model with 7,000
parameters, its first thousand and all of them; then a thousand with names that are hard to fold.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence

from timing import Row, milliseconds, show

from pytest_paramcheck.messages.findings import Finding, SubjectNames
from pytest_paramcheck.messages.rendering import render

PARTS = [
    *(f"attn.{which}_proj.{what}" for which in "qkvo" for what in ("weight", "bias")),
    *(f"mlp.{which}.{what}" for which in ("up", "down") for what in ("weight", "bias")),
    *("norm1.weight", "norm2.weight"),
]


def model_findings(count: int) -> dict[str, list[Finding]]:
    """Make the findings of usual failures of a language model, each for this many parameters."""
    names = [f"model.layers.{layer}.{part}" for layer in range(500) for part in PARTS][:count]
    return {
        "one reason": [
            Finding((n,), "no gradient", why="never used in the forward") for n in names
        ],
        "each its own values": [
            Finding((n,), "not finite", found=f"{i} of 4096 values: {i} NaN, first at [0, {i}]")
            for i, n in enumerate(names)
        ],
        "a mention in each reason": [
            Finding((n,), "zero gradient", why=f"{n.rpartition('.')[0]}.scale is all zero")
            for n in names
        ],
        "three dtypes": [
            Finding((n,), "wrong dtype", "float32", ("float16", "bfloat16", "float64")[i % 3])
            for i, n in enumerate(names)
        ],
        "a table in each": [
            Finding((n, f"ema.{n}"), "not tied", "", "DISTINCT", rows=((n, "Parameter"),))
            for n in names
        ],
    }


def hard_findings(count: int) -> dict[str, list[Finding]]:
    """Make findings with names that no rule of a model gives."""
    letters = random.Random(0)

    def word(size: int) -> str:
        return "".join(letters.choices("abcdefghij._0123456789", k=size))

    deep = ".".join(["inner"] * 200)
    names = [f"layers.{i}.w" for i in range(count + 20)]
    long_names = [word(2000) for _ in range(count)]
    return {
        "200 modules deep": [Finding((f"{deep}.{i}.w",), "no gradient") for i in range(count)],
        "2,000 irregular letters": [Finding((n,), "no gradient") for n in long_names],
        "20 mentions each": [
            Finding((names[i],), "equal", why=", ".join(names[i : i + 20])) for i in range(count)
        ],
    }


def plain(findings: Sequence[Finding]) -> str:
    return "\n".join(f"{', '.join(f.names)}: {f.problem} {f.found} {f.why}" for f in findings)


def main() -> int:
    """Print one row per shape of failure."""
    rows = []
    shapes = {
        **{f"1,000, {title}": found for title, found in model_findings(1000).items()},
        **{f"7,000, {title}": found for title, found in model_findings(7000).items()},
        **{f"1,000, {title}": found for title, found in hard_findings(1000).items()},
    }
    for title, findings in shapes.items():
        names = SubjectNames(tuple(name for finding in findings for name in finding.names))
        ours, lines = milliseconds(
            lambda findings=findings, names=names: render(findings, "Model", names=names),
            lambda findings=findings: plain(findings),
        )
        what = f"{title}, against {lines:.1f} ms of a line each"
        rows.append(Row(what, f"{ours:.0f} ms", "50 ms", ours < 50))
    return 0 if show(rows) else 1


if __name__ == "__main__":
    sys.exit(main())

"""What a hint says to do is done: the assertion passes then, and nothing else has changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import ParamCheckError

from ..problems import hints, matches
from ..remedies import Remedy, remedies

REMEDIES = remedies()


def _values(model: nn.Module | None) -> dict[str, Tensor]:
    if model is None:
        return {}
    named = dict(model.named_parameters(remove_duplicate=False))
    named.update(model.named_buffers(remove_duplicate=False))
    return {name: value.detach().clone() for name, value in named.items() if not value.is_meta}


@pytest.mark.parametrize(
    "remedy", [pytest.param(r, id=f"{r.id}{n}") for n, r in enumerate(REMEDIES)]
)
def test_what_a_hint_says_repairs(remedy: Remedy, tmp_path: Path) -> None:
    torch.manual_seed(0)
    case = remedy.case(tmp_path)
    with pytest.raises(ParamCheckError) as caught:
        case.call()
    given = [finding.hint for finding in caught.value.findings]
    chosen = [hint for hint in given if matches(remedy.hint, hint)]
    assert chosen, given
    before = _values(case.keeps)

    (case.repair(chosen[0]) or case.call)()

    after = _values(case.keeps)
    kept = [name for name in before if name not in case.changes]
    assert [name for name in kept if not torch.equal(before[name], after[name])] == []


#: Hints that are applied where there are ranks, by ``tests/ranks/hints.py``.
ELSEWHERE = {
    "let one rank step it",
    "step on every rank, and load the state on each of them",
    "seed each rank by itself: torch.manual_seed(seed + dist.get_rank())",
    "the optimizer has to be built of the wrapped model's parameters",
}


def test_what_is_applied_on_ranks_is_there() -> None:
    applied = (Path(__file__).parents[1] / "ranks" / "hints.py").read_text(encoding="utf-8")

    assert [hint for hint in sorted(ELSEWHERE) if f'"{hint}"' not in applied] == []


@pytest.mark.slow  # reads the whole package
def test_every_hint_is_applied(tmp_path: Path) -> None:
    given = set()
    for number, remedy in enumerate(REMEDIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        torch.manual_seed(0)
        with pytest.raises(ParamCheckError) as caught:
            remedy.case(folder).call()
        found = [finding.hint for finding in caught.value.findings]
        given.update(hint for hint in found if matches(remedy.hint, hint))

    known = [hint for hint in hints() if hint.strip("*")]
    assert len(known) > 150
    # Each of these wants a function in tests/remedies.
    unapplied = [hint for hint in known if not any(matches(hint, one) for one in given)]
    assert sorted(set(unapplied) - ELSEWHERE) == []

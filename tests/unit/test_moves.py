"""What a move to a device takes from a model. Meta is such a device, on every machine."""

from __future__ import annotations

from torch import nn

from pytest_paramcheck.checks.moves import lost_in_move
from pytest_paramcheck.messages.findings import Finding
from pytest_paramcheck.parameters.subject.reading import take_inventory

from ..models import LM


def lost(model: nn.Module, device: str) -> list[Finding]:
    before = take_inventory(model)
    return lost_in_move(before, take_inventory(model.to(device)))


def test_a_tie_and_why_it_is_lost() -> None:
    (finding,) = lost(LM(tied=True), "meta")
    assert (finding.names, finding.problem) == (("emb.weight", "head.weight"), "tie lost")
    assert finding.why == (
        "each has its own memory (on meta, where tensors have no values); "
        "a move from cpu to meta makes a new Parameter for every name."
    )
    assert finding.hint == (
        "call torch.__future__.set_swap_module_params_on_conversion(True) before the move, "
        "or tie again after it"
    )


def test_a_lazy_module() -> None:
    (weight, bias) = lost(nn.LazyLinear(3), "meta")
    assert (weight.names, weight.problem) == (("weight",), "no longer lazy")
    assert bias.names == ("bias",)
    assert weight.text() == (
        "a move from cpu to meta makes a Parameter without elements of an uninitialized one"
    )
    assert weight.hint == "move the model after its first forward, or build it on the device"


def test_what_a_move_keeps() -> None:
    shared = nn.Linear(3, 3)
    assert lost(LM(tied=True), "cpu") == []
    assert lost(nn.LazyLinear(3), "cpu") == []
    assert lost(nn.Sequential(shared, shared), "meta") == []  # the module is one, whatever it holds
    assert lost(LM(tied=False), "meta") == []


def test_a_name_that_the_move_took_away_is_not_called_untied() -> None:
    class Drops(LM):
        def _apply(self, fn: object, recurse: bool = True) -> nn.Module:
            del self.head
            return super()._apply(fn, recurse)  # type: ignore[no-any-return]

    assert lost(Drops(tied=True), "meta") == []

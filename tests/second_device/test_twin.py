"""The second device is one: its own tensors, indices, random states, copies and saves.

What the other tests of this folder show is worth as much as this.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from .here import HERE

TWIN: Any = getattr(torch, "twin", None)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh())
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def devices_of(model: nn.Module) -> set[torch.device]:
    return {tensor.device for tensor in (*model.parameters(), *model.buffers())}


def test_torch_sees_two_of_them() -> None:
    assert torch.accelerator.current_accelerator(check_available=True) == torch.device("twin")
    assert torch.accelerator.device_count() == 2
    assert torch.ones(1, device="twin").device == torch.device("twin:0")
    with pytest.raises(RuntimeError, match="there is no twin:2: the test device has 2 indices"):
        torch.empty(1, device="twin:2")


def test_the_current_index_is_the_one_without_a_number() -> None:
    with TWIN.device(1):
        assert torch.ones(1, device="twin").device == HERE
        assert torch.accelerator.current_device_index() == 1
    assert TWIN.current_device() == 0


@pytest.mark.parametrize("other", ["cpu", "twin:0"])
def test_devices_do_not_mix(other: str) -> None:
    here, there = torch.ones(2, 2, device=HERE), torch.ones(2, 2, device=other)
    for together in (torch.add, torch.mm, torch.dot, torch.cat):
        args = (here[0], there[0]) if together is torch.dot else (here, there)
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            together(list(args)) if together is torch.cat else together(*args)
    # As on torch's own devices: a number, and the indices of a selection, may be the cpu's.
    assert (here * torch.tensor(2.0)).device == HERE
    assert here[torch.tensor([1])].device == HERE


def test_views_share_memory_and_moves_do_not() -> None:
    x = torch.arange(6.0, device=HERE)
    x.view(2, 3)[1].fill_(7)
    assert x.tolist() == [0, 1, 2, 7, 7, 7]
    assert x.to(HERE) is x
    moved = x.to("twin:0")
    moved.zero_()
    assert x[-1].item() == 7


def test_what_a_kernel_resizes_is_resized() -> None:
    out = torch.empty(0, device=HERE)
    torch.add(torch.ones(3, device=HERE), 1, out=out)
    assert out.tolist() == [2, 2, 2]
    out.untyped_storage().resize_(0)
    assert out.untyped_storage().nbytes() == 0


@pytest.mark.parametrize("seed", [0, 7])
def test_each_index_has_a_random_state_of_its_own(seed: int) -> None:
    torch.manual_seed(seed)
    expected = torch.rand(3).tolist()
    torch.manual_seed(seed)
    states = [TWIN.get_rng_state(index) for index in range(2)]

    assert torch.rand(3, device=HERE).tolist() == expected
    assert torch.equal(TWIN.get_rng_state(0), states[0])
    assert torch.rand(3).tolist() == expected
    assert torch.rand(3, device="twin:0").tolist() == expected
    nn.functional.dropout(torch.ones(8, device=HERE))
    TWIN.set_rng_state(states[1], HERE)
    assert torch.rand(3, device=HERE).tolist() == expected
    own = torch.Generator(HERE).manual_seed(seed)
    assert torch.rand(3, device=HERE, generator=own).tolist() == expected
    assert torch.rand(3).tolist() != expected


def test_a_model_moves_and_a_deep_copy_stays() -> None:
    model = Model().to(HERE)
    assert devices_of(model) == {HERE}
    copied = copy.deepcopy(model)
    assert devices_of(copied) == {HERE}
    assert copied.head.weight.data_ptr() != model.head.weight.data_ptr()
    assert devices_of(model.to("twin:0")) == {torch.device("twin:0")}
    assert devices_of(model.cpu()) == {torch.device("cpu")}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, "twin:1"),
        ("cpu", "cpu"),
        ("meta", "meta"),
        ("twin", "twin:0"),
        ("twin:0", "twin:0"),
        ({"twin:1": "twin:0"}, "twin:0"),
        (lambda storage, location: storage, "cpu"),
    ],
)
def test_a_file_is_loaded_where_it_is_asked_for(where: Any, expected: str) -> None:
    file = io.BytesIO()
    saved = Model().to(HERE).state_dict()
    torch.save(saved, file)
    file.seek(0)
    loaded = torch.load(file, map_location=where)
    assert {str(tensor.device) for tensor in loaded.values()} == {expected}
    if expected != "meta":
        assert all(torch.equal(saved[key].cpu(), loaded[key].cpu()) for key in saved)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam-foreach": lambda p: torch.optim.Adam(p, foreach=True),
    "Adam-loop": lambda p: torch.optim.Adam(p, foreach=False),
    "AdamW-fused": lambda p: torch.optim.AdamW(p, fused=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p),
    "RMSprop": lambda p: torch.optim.RMSprop(p),
    "LBFGS": lambda p: torch.optim.LBFGS(p, max_iter=3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_what_it_is_on_the_cpu(name: str) -> None:
    def train(device: torch.device | str) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model, x = Model(), torch.randn(5, 4)
        model, x = model.to(device), x.to(device)
        optimizer = OPTIMIZERS[name](model.parameters())

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            value = model(x).square().mean()
            value.backward()
            return value

        for _ in range(3):
            optimizer.step(loss)  # type: ignore[arg-type]
        return [parameter.detach().cpu() for parameter in model.parameters()]

    for here, there in zip(train(HERE), train("cpu"), strict=True):
        torch.testing.assert_close(here, there)


@pytest.mark.parametrize("module", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_modules_are_what_they_are_on_the_cpu(module: type[nn.RNNBase]) -> None:
    model, x = module(3, 4), torch.randn(5, 2, 3)
    twin = copy.deepcopy(model).to(HERE)
    there, here = model(x)[0], twin(x.to(HERE))[0]
    (there.sin().sum()).backward(), here.sin().sum().backward()
    torch.testing.assert_close(here.cpu(), there)
    for ours, theirs in zip(twin.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.cpu(), theirs.grad)


def test_autocast_lowers_and_keeps_what_it_does_elsewhere() -> None:
    x = torch.randn(2, 4, device=HERE)
    with torch.autocast("twin", dtype=torch.bfloat16):
        lowered = nn.Linear(4, 2, device=HERE)(x)
        kept = lowered.log_softmax(-1)
    assert (lowered.dtype, lowered.device) == (torch.bfloat16, HERE)
    assert kept.dtype is torch.float32


def test_uninitialized_memory_can_be_made_visible() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3, device=HERE).isnan().all()
        assert torch.empty_strided((2,), (1,), device=HERE).isnan().all()
    finally:
        torch.use_deterministic_algorithms(False)


def test_transfers_are_counted_where_the_host_waits() -> None:
    x = torch.ones(3, device=HERE)

    def counted(work: Callable[[], object]) -> list[int]:
        before = [TWIN.transfers(index) for index in range(2)]
        work()
        return [TWIN.transfers(index) - before[index] for index in range(2)]

    assert counted(lambda: (x + 1).sum().sqrt()) == [0, 0]
    assert counted(lambda: x.tolist()) == [0, 1]
    assert counted(lambda: x.sum().item()) == [0, 1]
    assert counted(lambda: torch.equal(x, x)) == [0, 1]
    assert counted(lambda: x.to("twin:0").cpu()) == [1, 1]
    assert counted(lambda: torch.ones(3).to(HERE)) == [0, 0]

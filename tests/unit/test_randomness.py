"""The random states that are noted, put back and seeded, on backends this machine lacks."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from pytest_paramcheck.parameters.running.randomness import random_states, seed_all


class Backend:
    """A backend of two devices, each with one number for a state, as ``torch.<name>``."""

    def __init__(self, states: Sequence[int], *, initialized: bool, available: bool = True) -> None:
        self.states = list(states)
        self.is_initialized = lambda: initialized
        self.is_available = lambda: available
        self.device_count = lambda: len(self.states)

    def get_rng_state(self, device: torch.device) -> int:
        return self.states[device.index]

    def set_rng_state(self, state: int, device: torch.device) -> None:
        self.states[device.index] = state

    def manual_seed(self, seed: int) -> None:  # of the current device only, as in torch
        self.states[0] = seed


class Whole(Backend):
    """One that has functions for all its devices, as cuda and xpu have."""

    def get_rng_state_all(self) -> list[int]:
        return list(self.states)

    def set_rng_state_all(self, states: list[int]) -> None:
        self.states = list(states)

    def manual_seed_all(self, seed: int) -> None:
        self.states = [seed] * len(self.states)


def test_all_devices_of_the_backends_in_use_and_of_those_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_use, named = Whole([1, 2], initialized=True), Backend([3, 4], initialized=False)
    monkeypatch.setattr(torch, "xpu", in_use)
    monkeypatch.setattr(torch, "hpu", named, raising=False)

    with random_states([torch.device("hpu", 0), torch.device("cpu")]):
        seed_all(7, [torch.device("hpu", 0)])
        assert (in_use.states, named.states) == ([7, 7], [7, 4])
        named.states[1] = 8

    assert (in_use.states, named.states) == ([1, 2], [3, 4])


def test_a_backend_that_nobody_uses_or_that_is_not_there_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unused = Whole([1, 2], initialized=False)
    absent = Whole([3, 4], initialized=False, available=False)
    monkeypatch.setattr(torch, "xpu", unused)
    monkeypatch.setattr(torch, "hpu", absent, raising=False)

    with random_states([torch.device("hpu", 0), torch.device("meta")]):
        seed_all(7, [torch.device("hpu", 0)])
        unused.states, absent.states = [5, 5], [6, 6]

    assert (unused.states, absent.states) == ([5, 5], [6, 6])  # neither seeded nor put back


def test_python_numpy_and_the_cpu_go_on_where_they_were() -> None:
    def draw() -> tuple[float, float, float]:
        return torch.rand(()).item(), random.random(), float(np.random.random())

    seed_all(5)
    expected = draw(), draw()
    seed_all(5)
    first = draw()
    with random_states():
        seed_all(5)
        assert draw() == first

    assert (first, draw()) == expected

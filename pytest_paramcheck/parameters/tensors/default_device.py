"""Torch's default device: where a tensor is made when nobody says where."""

from __future__ import annotations

import torch


def default_device() -> torch.device:
    """Return where torch makes a tensor now. Raises what torch raises where it cannot.

    A tensor is asked, for ``torch.get_default_device()`` does not see ``with torch.device(...)``
    before torch 2.8 (pytorch#148621), and in 2.8 it raises AttributeError once
    ``torch.set_default_device(None)`` was called.
    """
    return torch.empty(0).device

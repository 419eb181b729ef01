"""Models whose parameters are kept, shared or computed in particular ways."""

# ruff: noqa: E741 - as public code is written

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
import torch.nn.utils.parametrizations as P  # noqa: N812
from torch import nn
from torch.nn.utils import parametrize, prune

from . import model, rn


@model(rn(4, 6))
class OldWeightNorm(nn.Module):
    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.a = nn.utils.weight_norm(nn.Linear(6, 5))
            self.b = nn.utils.weight_norm(nn.Conv1d(1, 2, 3))

    def forward(self, x):
        return self.b(torch.tanh(self.a(x))[:, None])


@model(rn(4, 6))
class NewNorms(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = P.weight_norm(nn.Linear(6, 5))
        self.b = P.spectral_norm(nn.Linear(5, 5))
        self.c = P.orthogonal(nn.Linear(5, 5))

    def forward(self, x):
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))


@model(rn(4, 6))
class OldSpectral(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.utils.spectral_norm(nn.Linear(6, 5))
        self.b = nn.utils.spectral_norm(nn.Linear(5, 1))

    def forward(self, x):
        return self.b(F.leaky_relu(self.a(x), 0.2))


@model(rn(4, 6))
class Symmetric(nn.Module):
    def __init__(self):
        super().__init__()

        class Sym(nn.Module):
            def forward(self, w):
                return w.triu() + w.triu(1).T

            def right_inverse(self, w):
                return w.triu()

        self.a = nn.Linear(6, 6)
        parametrize.register_parametrization(self.a, "weight", Sym())

    def forward(self, x):
        return self.a(x)


@model(rn(2, 8, 8))
class FNO(nn.Module):
    """complex weights"""

    def __init__(self):
        super().__init__()
        self.lift = nn.Linear(1, 4)
        self.w = nn.Parameter(torch.randn(4, 4, 3, 3, dtype=torch.cfloat) / 16)
        self.out = nn.Linear(4, 1)

    def forward(self, x):
        h = self.lift(x[..., None]).permute(0, 3, 1, 2)
        f = torch.fft.rfft2(h)
        o = torch.zeros_like(f)
        o[:, :, :3, :3] = torch.einsum("bixy,ioxy->boxy", f[:, :, :3, :3], self.w.to(f.dtype))
        return self.out((torch.fft.irfft2(o, s=x.shape[-2:]) + h).permute(0, 2, 3, 1))


@model(rn(4, 6))
class Lists(nn.Module):
    def __init__(self):
        super().__init__()
        self.ws = nn.ParameterList([nn.Parameter(torch.randn(6, 6)) for _ in range(3)])
        self.d = nn.ParameterDict(
            {"scale": nn.Parameter(torch.ones(6)), "b.c"[0:1]: nn.Parameter(torch.zeros(6))}
        )

    def forward(self, x):
        for w in self.ws:
            x = torch.tanh(x @ w)
        return [x * self.d["scale"] + self.d["b"], x.argmax(-1)]


@dataclass
class Out:
    logits: Any
    hidden: Any
    loss: Any = None


@model(rn(4, 6))
class DataclassOut(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        h = self.a(x)
        return Out(self.b(h), (x, h), self.b(h).logsumexp(-1).mean())


@model(rn(4, 6))
class MutatesInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 6)

    def forward(self, x):
        x.clamp_(-1, 1).mul_(2)
        return self.a(x)


@model(lambda: (torch.randn(5, 4), torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]])))
class GCN(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.c2 = GConv(4, 8), GConv(8, 3)
        self.reset_parameters()

    def reset_parameters(self):
        self.c1.reset_parameters()
        self.c2.reset_parameters()

    def forward(self, x, edge_index):
        return self.c2(F.elu(self.c1(x, edge_index)), edge_index).log_softmax(-1)


class GConv(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.lin = nn.Linear(i, o, bias=False)
        self.att = nn.Parameter(torch.empty(1, o))
        self.bias = nn.Parameter(torch.empty(o))
        self.reset_parameters()

    def reset_parameters(self):
        self.lin.reset_parameters()
        nn.init.xavier_uniform_(self.att)
        nn.init.zeros_(self.bias)

    def forward(self, x, e):
        h = self.lin(x)
        a = (h * self.att).sum(-1)
        w = torch.sigmoid(a[e[0]] + a[e[1]])
        return torch.zeros_like(h).index_add(0, e[1], h[e[0]] * w[:, None]) + self.bias


@model(rn(2, 1600))
class Wav2Vec(nn.Module):
    """Convolutions with a group norm, positions from a convolution with a weight norm."""

    def __init__(self):
        super().__init__()
        self.conv = nn.ModuleList(
            [nn.Conv1d(1, 8, 10, 5, bias=False), nn.Conv1d(8, 8, 3, 2, bias=False)]
        )
        self.gn = nn.GroupNorm(8, 8)
        self.proj = nn.Linear(8, 8)
        self.pos = P.weight_norm(nn.Conv1d(8, 8, 4, padding=2, groups=2), dim=2)
        self.ln = nn.LayerNorm(8)
        self.out = nn.Linear(8, 5)

    def forward(self, x):
        x = F.gelu(self.gn(self.conv[0](x[:, None])))
        x = F.gelu(self.conv[1](x)).transpose(1, 2)
        x = self.proj(x)
        return self.out(self.ln(x + F.gelu(self.pos(x.transpose(1, 2))[..., :-1]).transpose(1, 2)))


@model(rn(4, 2))
class Siren(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.ModuleList([nn.Linear(2, 16), nn.Linear(16, 16), nn.Linear(16, 1)])
        with torch.no_grad():
            self.net[0].weight.uniform_(-1 / 2, 1 / 2)
            for l in self.net[1:]:
                l.weight.uniform_(-math.sqrt(6 / 16) / 30, math.sqrt(6 / 16) / 30)

    def forward(self, x):
        coords = x.clone().detach().requires_grad_(True)
        h = coords
        for l in self.net[:-1]:
            h = torch.sin(30 * l(h))
        return self.net[-1](h), coords


@model(rn(4, 1, 6))
class KANish(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("grid", torch.linspace(-1, 1, 5).expand(6, -1).contiguous())
        self.coef = nn.Parameter(torch.randn(6, 5) * 0.1)
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x):
        return (torch.exp(-((x[..., None] - self.grid) ** 2)) * self.coef).sum(
            -1
        ) + self.scale * F.silu(x)


@model(rn(4, 6))
class Sparsemax(nn.Module):
    """prunes by a mask"""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        prune.random_unstructured(self.a, "weight", amount=0.3)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))


@model(rn(4, 6))
class BinaryNet(nn.Module):
    """straight-through sign"""

    def __init__(self):
        super().__init__()
        self.l = nn.Linear(6, 6)
        self.alpha = nn.Parameter(torch.ones(1))
        self.o = nn.Linear(6, 2)

    def forward(self, x):
        w = self.l.weight
        b = (w.sign() - w).detach() + w
        return self.o(F.hardtanh(F.linear(x, b * self.alpha, self.l.bias)))


@model(rn(4, 6))
class WeightStandardize(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv1d(1, 4, 3)
        self.gain = nn.Parameter(torch.ones(4, 1, 1))
        self.gn = nn.GroupNorm(2, 4)

    def forward(self, x):
        w = self.c.weight
        v, m = torch.var_mean(w, (1, 2), keepdim=True)
        return self.gn(
            F.conv1d(x[:, None], (w - m) * torch.rsqrt(v + 1e-5) * self.gain, self.c.bias)
        )


@model(rn(4, 6))
class DynamicHyper(nn.Module):
    """hypernetwork with functional_call"""

    def __init__(self):
        super().__init__()
        self.h = nn.Linear(6, 12)
        self.scale = nn.Parameter(torch.ones(1))
        object.__setattr__(self, "_inner", None)

    def forward(self, x):
        w = self.h(x).view(-1, 2, 6)
        return torch.bmm(w, x[..., None])[..., 0] * self.scale


@model(rn(4, 6))
class LoadHooks(nn.Module):
    """renames old keys on loading; saves an extra key"""

    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(6, 6)
        self._register_load_state_dict_pre_hook(self._rename)

    def _rename(self, sd, prefix, *a):
        for k in list(sd):
            if k.startswith(prefix + "old_proj."):
                sd[k.replace("old_proj.", "proj.")] = sd.pop(k)
        sd.pop(prefix + "version_tag", None)

    def _save_to_state_dict(self, d, prefix, keep):
        super()._save_to_state_dict(d, prefix, keep)
        d[prefix + "version_tag"] = torch.tensor(2)

    def forward(self, x):
        return self.proj(x)


@model(rn(4, 6))
class ProxyAttr(nn.Module):
    """getattr falls through to a wrapped module, properties raise"""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def __getattr__(self, n):
        try:
            return super().__getattr__(n)
        except AttributeError:
            return getattr(super().__getattr__("inner"), n)

    @property
    def trainer(self):
        raise RuntimeError("not attached to a Trainer")

    def forward(self, x):
        return self.inner(x)


@model(rn(4, 6))
class Heteroscedastic(nn.Module):
    """uncertainty weights, a constant parameter, frozen scalar"""

    def __init__(self):
        super().__init__()
        self.l = nn.Linear(6, 2)
        self.log_vars = nn.Parameter(torch.zeros(2))
        self.register_parameter("bias2", None)
        self.eps = nn.Parameter(torch.tensor(1e-3), requires_grad=False)

    def forward(self, x):
        y = self.l(x)
        return (torch.exp(-self.log_vars) * y**2 + self.log_vars).mean() + self.eps


@model(rn(4, 6))
class MixedDtypes(nn.Module):
    """a router in float32 beside bfloat16 layers"""

    def __init__(self):
        super().__init__()
        self.r = nn.Linear(6, 2)
        self.e = nn.ModuleList(nn.Linear(6, 6).bfloat16() for _ in range(2))

    def forward(self, x):
        w = self.r(x.to(self.r.weight.dtype)).softmax(-1)
        return sum(
            w[:, i : i + 1] * e(x.to(e.weight.dtype)).to(w.dtype) for i, e in enumerate(self.e)
        )


class MaskedConv(nn.Conv2d):
    """PixelCNN's: the weight is masked in place, in each forward."""

    def __init__(self, kind, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("mask", torch.ones_like(self.weight))
        h, w = self.mask.shape[2:]
        self.mask[:, :, h // 2, w // 2 + (kind == "B") :] = 0
        self.mask[:, :, h // 2 + 1 :] = 0

    def forward(self, x):
        self.weight.data *= self.mask
        return super().forward(x)


@model(lambda: torch.rand(2, 1, 6, 6))
class PixelCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            MaskedConv("A", 1, 8, 5, padding=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(True),
            MaskedConv("B", 8, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(True),
            nn.Conv2d(8, 4, 1),
        )

    def forward(self, x):
        return self.net(x)


class MaxNormConv(nn.Conv2d):
    """EEGNet's: no filter is longer than a largest norm."""

    def __init__(self, *args, max_norm, **kwargs):
        super().__init__(*args, **kwargs)
        self.max_norm = max_norm

    def forward(self, x):
        self.weight.data = torch.renorm(self.weight.data, p=2, dim=0, maxnorm=self.max_norm)
        return super().forward(x)


@model(rn(3, 1, 4, 32))
class EEGNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, (1, 8), padding=(0, 4), bias=False),
            nn.BatchNorm2d(4, momentum=0.01, eps=1e-3),
            MaxNormConv(4, 8, (4, 1), groups=4, bias=False, max_norm=0.5),
            nn.BatchNorm2d(8, momentum=0.01, eps=1e-3),
            nn.ELU(),
            nn.AvgPool2d((1, 4)),
            nn.Dropout(0.25),
        )
        self.head = nn.LazyLinear(2)
        self.head(self.net(torch.zeros(2, 1, 4, 32)).flatten(1))

    def forward(self, x):
        return self.head(self.net(x).flatten(1))

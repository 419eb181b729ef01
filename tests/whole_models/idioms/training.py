"""Models that see to a part of their training themselves."""

# ruff: noqa: B905, E731, E741 - as public code is written

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.checkpoint import checkpoint

from . import model, rn


@model(rn(8, 6))
class VQ(nn.Module):
    """EMA codebook: buffers updated in train only."""

    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(6, 4), nn.Linear(4, 6)
        e = torch.randn(7, 4)
        self.register_buffer("codebook", e)
        self.register_buffer("cluster_size", torch.zeros(7))
        self.register_buffer("embed_avg", e.clone())
        self.register_buffer("initted", torch.tensor(False))

    def forward(self, x):
        z = self.enc(x)
        if self.training and not self.initted:
            self.codebook.data.copy_(z.detach()[torch.arange(7) % len(z)])
            self.embed_avg.data.copy_(self.codebook)
            self.initted.data.copy_(torch.tensor(True))
        i = torch.cdist(z, self.codebook).argmin(1)
        q = self.codebook[i]
        if self.training:
            one = F.one_hot(i, 7).to(z.dtype)
            self.cluster_size.mul_(0.9).add_(one.sum(0), alpha=0.1)
            self.embed_avg.mul_(0.9).add_((one.t() @ z).detach(), alpha=0.1)
            self.codebook.copy_(self.embed_avg / (self.cluster_size[:, None] + 1e-5))
        commit = F.mse_loss(z, q.detach())
        return self.dec(z + (q - z).detach()), i, commit


@model(rn(8, 6))
class VQLearned(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(6, 4), nn.Linear(4, 6)
        self.codes = nn.Embedding(7, 4)
        self.codes.weight.data.uniform_(-1 / 7, 1 / 7)

    def forward(self, x):
        z = self.enc(x)
        i = torch.cdist(z, self.codes.weight).argmin(1)
        q = self.codes(i)
        loss = F.mse_loss(q, z.detach()) + 0.25 * F.mse_loss(q.detach(), z)
        return {"x": self.dec(z + (q - z).detach()), "loss": loss, "codes": i}


@model(rn(4, 6))
class GradCheckpoint(nn.Module):
    def __init__(self, reentrant=False):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.1), nn.Tanh()) for _ in range(3)
        )
        self.r = reentrant

    def forward(self, x):
        x = self.blocks[0](x)
        for b in self.blocks[1:]:
            x = checkpoint(b, x, use_reentrant=self.r)
        return x


@model(rn(4, 6))
class Teacher(nn.Module):
    """BYOL: online and target under no_grad, target EMA-updated outside."""

    def __init__(self):
        super().__init__()
        self.online = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4))
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.pred = nn.Linear(4, 4)

    def forward(self, x):
        p = F.normalize(self.pred(self.online(x)), dim=-1)
        with torch.no_grad():
            t = F.normalize(self.target(x), dim=-1)
        return (2 - 2 * (p * t).sum(-1)).mean()


@model(rn(4, 6))
class MoCo(nn.Module):
    """queue buffer and pointer, momentum update in forward"""

    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear(6, 4), nn.Linear(6, 4)
        for a, b in zip(self.q.parameters(), self.k.parameters()):
            b.data.copy_(a.data)
            b.requires_grad = False
        self.register_buffer("queue", F.normalize(torch.randn(4, 8), dim=0))
        self.register_buffer("ptr", torch.zeros(1, dtype=torch.long))

    def forward(self, x):
        q = F.normalize(self.q(x), dim=1)
        with torch.no_grad():
            if self.training:
                for a, b in zip(self.q.parameters(), self.k.parameters()):
                    b.mul_(0.99).add_(a, alpha=0.01)
            k = F.normalize(self.k(x), dim=1)
        out = torch.cat([(q * k).sum(1, keepdim=True), q @ self.queue.clone().detach()], 1) / 0.07
        if self.training:
            p = int(self.ptr)
            self.queue[:, p : p + len(x)] = k.T[:, : 8 - p]
            self.ptr[0] = (p + len(x)) % 8
        return out


@model(rn(4, 6))
class LoRA(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)).requires_grad_(False)
        self.A = nn.ParameterDict(
            {"0": nn.Parameter(torch.empty(2, 6)), "2": nn.Parameter(torch.empty(2, 6))}
        )
        self.B = nn.ParameterDict(
            {"0": nn.Parameter(torch.zeros(6, 2)), "2": nn.Parameter(torch.zeros(3, 2))}
        )
        for p in self.A.values():
            nn.init.kaiming_uniform_(p, a=5**0.5)

    def forward(self, x):
        x = F.relu(self.base[0](x) + x @ self.A["0"].t() @ self.B["0"].t())
        return self.base[2](x) + x @ self.A["2"].t() @ self.B["2"].t()


@model(rn(4, 3))
class Energy(nn.Module):
    """forces through autograd.grad"""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Softplus(), nn.Linear(8, 1))

    def forward(self, x):
        x = x.detach().requires_grad_(True)
        e = self.net(x).sum()
        f = -torch.autograd.grad(e, x, create_graph=True)[0]
        return e, f


@model(rn(4, 3))
class Flow(nn.Module):
    """RealNVP with masks as buffers, ActNorm initialized by data"""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0]))
        self.net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6))
        nn.init.zeros_(self.net[2].weight)
        nn.init.zeros_(self.net[2].bias)
        self.loc, self.log_scale = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
        self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))

    def forward(self, x):
        if self.training and self.initialized.item() == 0:
            with torch.no_grad():
                self.loc.copy_(-x.mean(0))
                self.log_scale.copy_(-torch.log(x.std(0) + 1e-6))
                self.initialized.fill_(1)
        x = (x + self.loc) * self.log_scale.exp()
        a, b = self.net(x * self.mask).chunk(2, -1)
        a = torch.tanh(a) * (1 - self.mask)
        z = x * a.exp() + b * (1 - self.mask)
        return z, a.sum(-1) + self.log_scale.sum()


@model(rn(4, 6))
class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.e, self.mu, self.lv, self.d = (
            nn.Linear(6, 8),
            nn.Linear(8, 2),
            nn.Linear(8, 2),
            nn.Linear(2, 6),
        )

    def forward(self, x):
        h = F.relu(self.e(x))
        m, v = self.mu(h), self.lv(h)
        z = m + torch.randn_like(m) * (v / 2).exp()
        return self.d(z), torch.distributions.Normal(m, (v / 2).exp())


@model(rn(4, 6))
class NoisyNet(nn.Module):
    """noise in buffers, drawn by a method"""

    def __init__(self):
        super().__init__()
        self.mu, self.sigma = nn.Parameter(torch.empty(3, 6)), nn.Parameter(torch.empty(3, 6))
        self.register_buffer("eps", torch.empty(3, 6))
        self.reset_parameters()
        self.reset_noise()

    def reset_parameters(self):
        nn.init.uniform_(self.mu, -0.4, 0.4)
        nn.init.constant_(self.sigma, 0.2)

    def reset_noise(self):
        self.eps.copy_(torch.randn(3, 1) @ torch.randn(1, 6))

    def forward(self, x):
        return F.linear(x, self.mu + self.sigma * self.eps if self.training else self.mu)


@model(rn(4, 6))
class MCDropout(nn.Module):
    """Standardize by buffers, monte-carlo dropout always on"""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("std", torch.ones(6))
        self.l = nn.Linear(6, 6)
        self.o = nn.Linear(6, 1)

    def forward(self, x):
        return self.o(F.dropout(F.relu(self.l((x - self.mean) / self.std)), 0.1, training=True))


@model(rn(4, 6))
class Gumbel(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(6, 4)
        self.cb = nn.Parameter(torch.randn(4, 5))
        self.temp = 1.0

    def forward(self, x):
        return F.gumbel_softmax(self.l(x), tau=self.temp, hard=self.training) @ self.cb


@model(rn(2, 16))
class FakeQuant(nn.Module):
    """observers move in training only"""

    def __init__(self):
        super().__init__()
        self.l = nn.Linear(16, 4)
        self.register_buffer("lo", torch.tensor(0.0))
        self.register_buffer("hi", torch.tensor(0.0))
        self.register_buffer("enabled", torch.tensor([1], dtype=torch.uint8))

    def forward(self, x):
        if self.training:
            self.lo.copy_(torch.minimum(self.lo, x.detach().min()))
            self.hi.copy_(torch.maximum(self.hi, x.detach().max()))
        sc = ((self.hi - self.lo) / 255).clamp(min=1e-8)
        return self.l(x + ((x / sc).round() * sc - x).detach())


@model(rn(4, 6))
class EMAInside(nn.Module):
    """Running statistics, with a count in a plain number that is saved as extra state."""

    def __init__(self):
        super().__init__()
        self.l = nn.Linear(6, 2)
        self.register_buffer("m", torch.zeros(6))
        self.n = 0

    def get_extra_state(self):
        return {"n": self.n}

    def set_extra_state(self, st):
        self.n = st["n"]

    def forward(self, x):
        if self.training:
            self.n += 1
            self.m += (x.detach().mean(0) - self.m) / self.n
        return self.l(x - self.m)


@model(rn(4, 6))
class ImmortalFreeze(nn.Module):
    """train() keeps a frozen batch norm in eval"""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)).requires_grad_(False)
        self.head = nn.Linear(6, 2)

    def train(self, mode=True):
        super().train(mode)
        self.body.eval()
        return self

    def forward(self, x):
        return self.head(F.relu(self.body(x)))


@model(rn(4, 6))
class FreezeByNoGrad(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 6)
        self.head = nn.Linear(6, 2)
        for p in self.body.parameters():
            p.requires_grad = False

    def forward(self, x):
        with torch.no_grad():
            h = self.body(x)
        return self.head(h)


@model(rn(3, 4, 6))
class Spiking(nn.Module):
    """membrane potentials, a surrogate gradient"""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 2)
        self.v = 0.0

    def forward(self, x):
        self.v = 0.0
        out = 0
        for t in range(x.shape[1]):
            self.v = 0.9 * self.v + self.a(x[:, t])
            s = Spike.apply(self.v - 0.5)
            self.v = self.v * (1 - s.detach())
            out = out + self.b(s)
        self.v = self.v.detach()
        return out


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g / (1 + 10 * x.abs()) ** 2


@model(rn(4, 6))
class GradReverse(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.c, self.d = nn.Linear(6, 6), nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x):
        h = F.relu(self.f(x))
        return self.c(h), self.d(Rev.apply(h, 1.0))


class Rev(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, a):
        ctx.a = a
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -ctx.a * g, None


@model(rn(4, 6))
class SWA(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
        self.avg = torch.optim.swa_utils.AveragedModel(self.net)
        self.avg.requires_grad_(False)

    def forward(self, x):
        return self.net(x) if self.training else self.avg(x)


@model(rn(4, 6))
class Int8Buffers(nn.Module):
    """weights of 8 bits with scales, an adapter that trains"""

    def __init__(self):
        super().__init__()
        self.register_buffer("w", torch.randint(-128, 127, (6, 6), dtype=torch.int8))
        self.register_buffer("s", torch.rand(6, 1) / 100)
        self.a = nn.Linear(6, 2, bias=False)
        self.b = nn.Linear(2, 6, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x):
        return F.linear(x, self.w.to(x.dtype) * self.s.to(x.dtype)) + self.b(self.a(x))


@model(rn(4, 6))
class SharedTrunk(nn.Module):
    """actor and critic with a shared trunk registered under two names, PPO"""

    def __init__(self):
        super().__init__()
        trunk = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
        self.actor, self.critic = (
            nn.Sequential(trunk, nn.Linear(8, 2)),
            nn.Sequential(trunk, nn.Linear(8, 1)),
        )
        self.log_std = nn.Parameter(torch.zeros(2))
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.orthogonal_(m.weight, math.sqrt(2))
                nn.init.zeros_(m.bias)
        nn.init.orthogonal_(self.actor[1].weight, 0.01)

    def forward(self, x):
        return torch.distributions.Normal(self.actor(x), self.log_std.exp()), self.critic(x)


@model(lambda: (torch.randn(4, 6), torch.randn(4, 2)))
class TwinQ(nn.Module):
    """TD3: twin critics and frozen targets"""

    def __init__(self):
        super().__init__()
        mk = lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
        self.q1, self.q2 = mk(), mk()
        self.t1, self.t2 = (
            copy.deepcopy(self.q1).requires_grad_(False),
            copy.deepcopy(self.q2).requires_grad_(False),
        )
        self.log_alpha = nn.Parameter(torch.zeros(()))

    def forward(self, s, a):
        x = torch.cat([s, a], -1)
        with torch.no_grad():
            y = torch.min(self.t1(x), self.t2(x)) - self.log_alpha.exp()
        return (
            F.mse_loss(self.q1(x), y) + F.mse_loss(self.q2(x), y) + self.log_alpha * (y.mean() + 1)
        )


@model(rn(4, 6))
class LayerDropped(nn.Module):
    def __init__(self):
        super().__init__()
        self.i = nn.Linear(6, 6)
        self.l = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))

    def forward(self, x):
        x = self.i(x)
        for l in self.l:
            if not self.training or torch.rand(()) > 0.2:
                x = x + torch.tanh(l(x))
        return x


@model(rn(4, 6))
class MixtureDensity(nn.Module):
    def __init__(self):
        super().__init__()
        self.h, self.pi, self.mu, self.sg = (
            nn.Linear(6, 8),
            nn.Linear(8, 3),
            nn.Linear(8, 3),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        h = torch.tanh(self.h(x))
        d = torch.distributions
        return d.MixtureSameFamily(
            d.Categorical(logits=self.pi(h)), d.Normal(self.mu(h), F.softplus(self.sg(h)))
        )

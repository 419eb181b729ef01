"""Models of images and films."""

# ruff: noqa: B905, E741, N801 - as public code is written

from __future__ import annotations

import collections
import copy
import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from . import model, rn


@model(rn(4, 3, 8, 8))
class LayerScaleViT(nn.Module):
    """lucidrains/timm style: cls token, pos emb, layer scale 1e-6, drop path"""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.cls = nn.Parameter(torch.zeros(1, 1, 8))
        self.pos = nn.Parameter(torch.zeros(1, 5, 8))
        nn.init.trunc_normal_(self.pos, std=0.02)
        nn.init.normal_(self.cls, std=1e-6)
        self.blocks = nn.Sequential(*[LSBlock(8, r) for r in (0.0, 0.2)])
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos
        return self.head(self.norm(self.blocks(x))[:, 0])


class LSBlock(nn.Module):
    def __init__(self, d, rate):
        super().__init__()
        self.n1, self.attn, self.n2 = (
            nn.LayerNorm(d),
            nn.MultiheadAttention(d, 2, batch_first=True),
            nn.LayerNorm(d),
        )
        self.mlp = nn.Sequential(nn.Linear(d, 16), nn.GELU(), nn.Linear(16, d))
        self.g1, self.g2 = nn.Parameter(1e-6 * torch.ones(d)), nn.Parameter(1e-6 * torch.ones(d))
        self.rate = rate

    def drop(self, x):
        if not self.training or not self.rate:
            return x
        keep = (torch.rand(len(x), 1, 1, device=x.device) > self.rate).to(x.dtype)
        return x * keep / (1 - self.rate)

    def forward(self, x):
        y = self.n1(x)
        x = x + self.drop(self.g1 * self.attn(y, y, y, need_weights=False)[0])
        return x + self.drop(self.g2 * self.mlp(self.n2(x)))


@model(rn(4, 3, 16, 16))
class ZeroInitResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.l1, self.l2 = BasicB(8, 8), BasicB(8, 16, 2)
        self.fc = nn.Linear(16, 5)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out")
            if isinstance(m, BasicB):
                nn.init.zeros_(m.b2.weight)

    def forward(self, x):
        x = F.relu(self.bn(self.stem(x)), inplace=True)
        return self.fc(F.adaptive_avg_pool2d(self.l2(self.l1(x)), 1).flatten(1))


class BasicB(nn.Module):
    def __init__(self, i, o, st=1):
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(i, o, 3, st, 1, bias=False), nn.BatchNorm2d(o)
        self.c2, self.b2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.down = (
            None
            if st == 1
            else nn.Sequential(nn.Conv2d(i, o, 1, st, bias=False), nn.BatchNorm2d(o))
        )

    def forward(self, x):
        y = self.b2(self.c2(F.relu_(self.b1(self.c1(x)))))
        return F.relu_(y + (x if self.down is None else self.down(x)))


@model(rn(2, 3, 16, 16))
class FrozenBNDetector(nn.Module):
    """torchvision: FrozenBatchNorm2d buffers, anchors cached in a dict, dict outputs"""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn = FrozenBN(8)
        self.stem.weight.requires_grad_(False)
        self.fpn = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, 2, 1)])
        self.cls, self.box = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 12, 1)
        nn.init.normal_(self.cls.weight, std=0.01)
        nn.init.constant_(self.cls.bias, -math.log(99))
        self._cache = {}

    def anchors(self, f):
        key = (f.shape[-2:], f.device)
        if key not in self._cache:
            self._cache[key] = torch.rand(3, 4, device=f.device) * 0 + 1
        return self._cache[key]

    def forward(self, x):
        f = F.relu(self.bn(self.stem(x)))
        feats = [l(f) for l in self.fpn]
        return {
            "logits": [self.cls(f) for f in feats],
            "boxes": [self.box(f) for f in feats],
            "anchors": [self.anchors(f) for f in feats],
        }


class FrozenBN(nn.Module):
    def __init__(self, n):
        super().__init__()
        for k, v in (
            ("weight", torch.ones(n)),
            ("bias", torch.zeros(n)),
            ("running_mean", torch.zeros(n)),
            ("running_var", torch.ones(n)),
        ):
            self.register_buffer(k, v)

    def _load_from_state_dict(self, sd, prefix, *a):
        sd.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(sd, prefix, *a)

    def forward(self, x):
        w, b = self.weight.view(1, -1, 1, 1), self.bias.view(1, -1, 1, 1)
        sc = w * (self.running_var.view(1, -1, 1, 1) + 1e-5).rsqrt()
        return x * sc + (b - self.running_mean.view(1, -1, 1, 1) * sc)


@model(lambda: (torch.randn(4, 6), torch.randn(4, 5)))
class CLIP(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(5, 8)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, x, y):
        x, y = F.normalize(self.a(x), dim=-1), F.normalize(self.b(y), dim=-1)
        l = self.logit_scale.clamp(max=4.6).exp() * x @ y.t()
        return l, l.t()


@model(lambda: (torch.randn(2, 4, 8, 8), torch.tensor([3.0, 9.0])))
class DiffusionUNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp = nn.Conv2d(4, 8, 3, padding=1)
        self.temb = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 16))
        self.down, self.mid, self.up = ResT(8, 8), ResT(8, 8), ResT(16, 8)
        self.pool = nn.Conv2d(8, 8, 3, 2, 1)
        self.upc = nn.ConvTranspose2d(8, 8, 4, 2, 1)
        self.norm = nn.GroupNorm(2, 8)
        self.out = nn.Conv2d(8, 4, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x, t):
        f = torch.exp(-math.log(10000) * torch.arange(4, device=t.device, dtype=t.dtype) / 4)
        e = t[:, None] * f
        e = self.temb(torch.cat([e.sin(), e.cos()], -1))
        x = self.inp(x)
        d = self.down(x, e)
        m = self.mid(self.pool(d), e)
        return self.out(F.silu(self.norm(self.up(torch.cat([self.upc(m), d], 1), e))))


class ResT(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.n1, self.c1 = nn.GroupNorm(2, i), nn.Conv2d(i, o, 3, padding=1)
        self.t = nn.Linear(16, 2 * o)
        self.n2, self.c2 = nn.GroupNorm(2, o), nn.Conv2d(o, o, 3, padding=1)
        nn.init.zeros_(self.c2.weight)
        nn.init.zeros_(self.c2.bias)
        self.skip = nn.Identity() if i == o else nn.Conv2d(i, o, 1)

    def forward(self, x, e):
        h = self.c1(F.silu(self.n1(x)))
        a, b = self.t(F.silu(e))[:, :, None, None].chunk(2, 1)
        return self.skip(x) + self.c2(
            F.dropout(F.silu(self.n2(h) * (1 + a) + b), 0.1, self.training)
        )


@model(lambda: (torch.randn(2, 4, 8), torch.randn(2, 8)))
class DiT(nn.Module):
    """adaLN-zero"""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(DiTB(8) for _ in range(2))
        self.norm = nn.LayerNorm(8, elementwise_affine=False)
        self.ada = nn.Sequential(nn.SiLU(), nn.Linear(8, 16))
        self.out = nn.Linear(8, 8)
        for l in (self.ada[1], self.out):
            nn.init.zeros_(l.weight)
            nn.init.zeros_(l.bias)
        self.register_buffer("pos", torch.arange(32.0).reshape(1, 4, 8).sin())

    def forward(self, x, c):
        x = x + self.pos
        for b in self.blocks:
            x = b(x, c)
        a, b = self.ada(c)[:, None].chunk(2, -1)
        return self.out(self.norm(x) * (1 + a) + b)


class DiTB(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.n = nn.LayerNorm(d, elementwise_affine=False)
        self.attn = nn.MultiheadAttention(d, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU("tanh"), nn.Linear(2 * d, d))
        self.ada = nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d))
        nn.init.zeros_(self.ada[1].weight)
        nn.init.zeros_(self.ada[1].bias)

    def forward(self, x, c):
        a1, b1, g1, a2, b2, g2 = self.ada(c)[:, None].chunk(6, -1)
        y = self.n(x) * (1 + a1) + b1
        x = x + g1 * self.attn(y, y, y)[0]
        return x + g2 * self.mlp(self.n(x) * (1 + a2) + b2)


@model(rn(2, 3, 8, 8))
class Unfold(nn.Module):
    """deep supervision, aux heads only in training; returns tuple in training and tensor in eval"""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.aux, self.head = (
            nn.Conv2d(3, 4, 3),
            nn.Conv2d(4, 4, 3),
            nn.Conv2d(4, 2, 1),
            nn.Conv2d(4, 2, 1),
        )

    def forward(self, x):
        a = F.relu(self.a(x))
        b = F.relu(self.b(a))
        o = self.head(b)
        return (o, self.aux(a)) if self.training else o


@model(rn(4, 3, 8, 8))
class SpectralGANDisc(nn.Module):
    def __init__(self):
        super().__init__()
        sn = nn.utils.spectral_norm
        self.c1, self.c2, self.fc = (
            sn(nn.Conv2d(3, 8, 4, 2, 1)),
            sn(nn.Conv2d(8, 8, 4, 2, 1)),
            sn(nn.Linear(32, 1)),
        )

    def forward(self, x):
        return self.fc(F.leaky_relu(self.c2(F.leaky_relu(self.c1(x), 0.2)), 0.2).flatten(1)).view(
            -1
        )


@model(rn(4, 3, 8, 8))
class SE_HardSigmoid(nn.Module):
    """squeeze and excite with bn over one position, hardswish"""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.r, self.e = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        x = F.hardswish(self.bn(self.c(x)))
        g = F.hardsigmoid(self.e(F.relu(self.r(x.mean((2, 3), keepdim=True)))))
        return self.fc((x * g).mean((2, 3)))


@model(rn(2, 3, 8, 8))
class TwoBranchShared(nn.Module):
    """RetinaNet-like: a head applied to each level, one norm per level; level scale"""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 4, 3, 2, 1)
        self.head = nn.Conv2d(4, 4, 3, padding=1)
        self.bns = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
        self.scales = nn.ParameterList([nn.Parameter(torch.tensor(1.0)) for _ in range(2)])

    def forward(self, x):
        a = self.c(x)
        b = self.down(a)
        return [
            torch.exp(sc * F.relu(bn(self.head(f))))
            for f, bn, sc in zip((a, b), self.bns, self.scales)
        ]


@model(rn(2, 5, 8))
class DETRClones(nn.Module):
    """clones of one layer, then xavier for matrices"""

    def __init__(self):
        super().__init__()
        l = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers = nn.ModuleList([copy.deepcopy(l) for _ in range(3)])
        self.query = nn.Embedding(4, 8)
        self.head = nn.Linear(8, 3)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)

    def forward(self, x):
        x = torch.cat([x, self.query.weight.expand(len(x), -1, -1)], 1)
        for l in self.layers:
            x = l(x)
        return self.head(x)


@model(rn(2, 3, 8, 8))
class MAE(nn.Module):
    """Random masking; sinusoidal positions as frozen parameters, alike in both halves."""

    def __init__(self):
        super().__init__()
        pos = torch.arange(32.0).reshape(1, 4, 8).sin()
        self.patch = nn.Linear(48, 8)
        self.pos = nn.Parameter(pos.clone(), requires_grad=False)
        self.dpos = nn.Parameter(pos.clone(), requires_grad=False)
        self.mask = nn.Parameter(torch.zeros(1, 1, 8))
        nn.init.normal_(self.mask, std=0.02)
        self.enc, self.dec, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 48)

    def forward(self, x):
        p = x.reshape(len(x), 4, 48)
        h = self.patch(p) + self.pos
        keep = torch.rand(len(x), 4, device=x.device).argsort(1)[:, :2]
        k = self.enc(h.gather(1, keep[..., None].expand(-1, -1, 8)))
        full = self.mask.expand(len(x), 4, 8).scatter(1, keep[..., None].expand(-1, -1, 8), k)
        return ((self.out(F.gelu(self.dec(full + self.dpos))) - p) ** 2).mean()


@model(rn(4, 3, 8, 8))
class GoogLike(nn.Module):
    """aux only in training, ordered dict"""

    def __init__(self):
        super().__init__()
        self.a, self.aux, self.h = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        f = F.relu(self.a(x)).mean((2, 3))
        r = collections.OrderedDict(out=self.h(f))
        if self.training:
            r["aux"] = self.aux(f)
        return r


@model(lambda: {"images": torch.randn(2, 3, 8, 8), "targets": torch.tensor([1, 0])})
class LossInTrain(nn.Module):
    """a dict of losses in training, predictions in eval"""

    def __init__(self):
        super().__init__()
        self.b, self.h, self.r = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), nn.Linear(4, 4)

    def forward(self, images, targets=None):
        f = F.relu(self.b(images)).mean((2, 3))
        if self.training:
            return {
                "cls": F.cross_entropy(self.h(f), targets),
                "box": F.smooth_l1_loss(self.r(f), torch.ones_like(self.r(f))),
            }
        return [{"scores": s, "boxes": b} for s, b in zip(self.h(f).softmax(-1), self.r(f))]


@model(rn(2, 3, 8, 8))
class WindowAttn(nn.Module):
    """swin: relative position table, index buffer, masks as buffers or None"""

    def __init__(self):
        super().__init__()
        self.p = nn.Conv2d(3, 8, 2, 2)
        self.table = nn.Parameter(torch.zeros(49, 2))
        nn.init.trunc_normal_(self.table, std=0.02)
        c = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")).flatten(1)
        r = (c[:, :, None] - c[:, None]).permute(1, 2, 0) + 3
        self.register_buffer("relative_position_index", r[..., 0] * 7 + r[..., 1])
        self.register_buffer("attn_mask", None)
        self.qkv, self.o = nn.Linear(8, 24), nn.Linear(8, 8)
        self.logit_scale = nn.Parameter(torch.log(10 * torch.ones(2, 1, 1)))

    def forward(self, x):
        x = self.p(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).reshape(len(x), 16, 3, 2, 4).permute(2, 0, 3, 1, 4)
        b = self.table[self.relative_position_index.view(-1)].view(16, 16, 2).permute(2, 0, 1)
        a = (
            F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        ) * self.logit_scale.clamp(max=4.6).exp() + b
        return self.o((a.softmax(-1) @ v).transpose(1, 2).reshape(len(x), 16, 8))


@model(rn(2, 3, 4, 8, 8))
class Video(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Sequential(
            nn.Conv3d(3, 4, (1, 3, 3), padding=(0, 1, 1), bias=False),
            nn.BatchNorm3d(4),
            nn.ReLU(True),
            nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0)),
        )
        self.f = nn.Linear(4, 2)

    def forward(self, x):
        return self.f(self.c(x).mean((2, 3, 4)))

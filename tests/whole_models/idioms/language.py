"""Language models and other sequences."""

# ruff: noqa: E731, E741, N806 - as public code is written

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from . import ids, model, rn


@model(ids(17, 2, 8))
class NanoGPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(17, 8), nn.Embedding(8, 8)
        self.blocks = nn.ModuleList(GBlock(8) for _ in range(2))
        self.ln = nn.LayerNorm(8)
        self.head = nn.Linear(8, 17, bias=False)
        self.wte.weight = self.head.weight
        self.apply(self._init)
        for n, p in self.named_parameters():
            if n.endswith("proj.weight"):
                nn.init.normal_(p, std=0.02 / 2)

    def _init(self, m):
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, std=0.02)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.Embedding):
            nn.init.normal_(m.weight, std=0.02)

    def forward(self, x, targets=None):
        h = self.wte(x) + self.wpe(torch.arange(x.shape[1], device=x.device))
        for b in self.blocks:
            h = b(h)
        logits = self.head(self.ln(h))
        loss = None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits, loss


class GBlock(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(d, bias=False), nn.LayerNorm(d)
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.fc, self.proj2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.register_buffer("bias", torch.tril(torch.ones(8, 8)).view(1, 1, 8, 8))
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (
            t.view(B, T, 2, C // 2).transpose(1, 2) for t in self.qkv(self.n1(x)).split(C, 2)
        )
        a = (q @ k.transpose(-2, -1)) / math.sqrt(C // 2)
        a = self.drop(a.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf")).softmax(-1))
        x = x + self.proj((a @ v).transpose(1, 2).reshape(B, T, C))
        return x + self.drop(self.proj2(F.gelu(self.fc(self.n2(x)))))


@model(ids(13, 2, 6))
class Albert(nn.Module):
    """One layer applied several times; a decoder reads the embedding through a property."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(13, 4, padding_idx=0)
        self.up = nn.Linear(4, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.down = nn.Linear(8, 4)
        self.bias = nn.Parameter(torch.zeros(13))
        self.register_buffer("position_ids", torch.arange(6)[None], persistent=False)

    @property
    def decoder_weight(self):
        return self.emb.weight

    def forward(self, x, attention_mask=None):
        h = self.up(self.emb(x))
        for _ in range(3):
            h = self.layer(h)
        return F.linear(self.down(h), self.decoder_weight, self.bias)


@model(ids(11, 2, 3))
class TopKMoE(nn.Module):
    """Experts that no token of a tiny batch is sent to."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(11, 8)
        self.gate = nn.Linear(8, 8, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 8)) for _ in range(8)
        )

    def forward(self, x):
        h = self.emb(x).flatten(0, 1)
        w, i = self.gate(h).softmax(-1).topk(2)
        w = w / w.sum(-1, keepdim=True)
        out = torch.zeros_like(h)
        for n, e in enumerate(self.experts):
            rows, place = torch.where(i == n)
            if len(rows):
                out.index_add_(0, rows, w[rows, place, None] * e(h[rows]))
        return out + h


@model(rn(3, 5, 4))
class BiLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 6, 2, batch_first=True, bidirectional=True, dropout=0.1)
        self.out = nn.Linear(12, 3)
        for n, p in self.rnn.named_parameters():
            if "weight_hh" in n:
                nn.init.orthogonal_(p)
            if "bias" in n:
                nn.init.zeros_(p)
                p.data[6:12] = 0.5

    def forward(self, x):
        return self.out(self.rnn(x)[0])


@model(rn(2, 4, 8))
class LazyMask(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.register_buffer("mask", None, persistent=False)
        self.rot = None
        self.register_buffer(
            "inv_freq", 1 / 10000 ** (torch.arange(0, 8, 2).float() / 8), persistent=False
        )

    def get(self, n, dev):
        if self.mask is None or len(self.mask) < n:
            self.register_buffer(
                "mask", torch.full((n, n), -1e9, device=dev).triu(1), persistent=False
            )
        return self.mask[:n, :n]

    def cos(self, x):
        if self.rot is None or self.rot.shape[0] != x.shape[1] or self.rot.device != x.device:
            f = torch.outer(
                torch.arange(x.shape[1], device=x.device).float(), self.inv_freq.float()
            )
            self.rot = torch.cat([f, f], -1)
        return self.rot.cos().to(x.dtype), self.rot.sin().to(x.dtype)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        c, sn = self.cos(x)
        half = lambda t: torch.cat([-t[..., 4:], t[..., :4]], -1)
        q, k = q * c + half(q) * sn, k * c + half(k) * sn
        return self.out(
            (q @ k.transpose(1, 2) / 8**0.5 + self.get(x.shape[1], x.device).to(x.dtype)).softmax(
                -1
            )
            @ v
        )


@model(rn(2, 5, 6))
class S4D(nn.Module):
    """state space: A_log, D, dt bias with _no_weight_decay"""

    def __init__(self):
        super().__init__()
        self.inp = nn.Linear(6, 12)
        self.conv = nn.Conv1d(6, 6, 3, padding=2, groups=6)
        self.xp = nn.Linear(6, 9)
        self.dt = nn.Linear(1, 6)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, 5).float()).repeat(6, 1))
        self.A_log._no_weight_decay = True
        self.D = nn.Parameter(torch.ones(6))
        self.out = nn.Linear(6, 6)
        with torch.no_grad():
            dt = torch.exp(torch.rand(6) * 4 - 6)
            self.dt.bias.copy_(dt + torch.log(-torch.expm1(-dt)))
        self.dt.bias._no_reinit = True

    def forward(self, x):
        h, z = self.inp(x).chunk(2, -1)
        h = F.silu(self.conv(h.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        dt, B, C = self.xp(h).split([1, 4, 4], -1)
        dt = F.softplus(self.dt(dt))
        A = -torch.exp(self.A_log.float()).to(x.dtype)
        st = torch.zeros(len(x), 6, 4, dtype=x.dtype, device=x.device)
        ys = []
        for t in range(x.shape[1]):
            st = (
                st * torch.exp(dt[:, t, :, None] * A)
                + dt[:, t, :, None] * B[:, t, None] * h[:, t, :, None]
            )
            ys.append((st * C[:, t, None]).sum(-1))
        return self.out((torch.stack(ys, 1) + self.D * h) * F.silu(z))


@model(
    lambda: {
        "input_ids": torch.randint(1, 13, (3, 6)),
        "attention_mask": torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 6]),
    }
)
class SentenceEmbedder(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(13, 8, padding_idx=0)
        self.enc = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False
        )
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)

    def forward(self, input_ids, attention_mask):
        h = self.enc(self.emb(input_ids), src_key_padding_mask=attention_mask == 0)
        m = attention_mask[..., None].to(h.dtype)
        return {
            "sentence_embedding": F.normalize((h * m).sum(1) / m.sum(1).clamp(min=1e-9), dim=-1),
            "token_embeddings": h,
        }


@model(ids(12, 3, 4))
class TabTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("offsets", torch.tensor([0, 3, 6, 9]), persistent=False)
        self.emb = nn.Embedding(24, 6)
        self.shared = nn.Parameter(torch.zeros(4, 2))
        nn.init.normal_(self.shared, std=0.02)
        self.out = nn.Linear(32, 2)

    def forward(self, x):
        h = self.emb(x + self.offsets)
        return self.out(torch.cat([h, self.shared.expand(len(x), -1, -1)], -1).flatten(1))


@model(rn(2, 5, 8))
class LinearAttentionLearnedDecay(nn.Module):
    def __init__(self):
        super().__init__()
        self.time_decay = nn.Parameter(torch.linspace(-5, 3, 8))
        self.time_first = nn.Parameter(torch.ones(8) * math.log(0.3))
        self.mix_k, self.mix_v = (
            nn.Parameter(torch.linspace(0, 1, 8)[None, None]),
            nn.Parameter(torch.linspace(0, 1, 8)[None, None]),
        )
        self.k, self.v, self.r, self.o = (nn.Linear(8, 8, bias=False) for _ in range(4))
        nn.init.zeros_(self.k.weight)
        nn.init.zeros_(self.r.weight)
        nn.init.zeros_(self.o.weight)

    def forward(self, x):
        prev = F.pad(x, (0, 0, 1, -1))
        k, v, r = (
            self.k(x * self.mix_k + prev * (1 - self.mix_k)),
            self.v(x * self.mix_v + prev * (1 - self.mix_v)),
            torch.sigmoid(self.r(x)),
        )
        num = torch.zeros_like(x[:, 0])
        den = num
        out = []
        for t in range(x.shape[1]):
            e = torch.exp(self.time_first + k[:, t])
            out.append((num + e * v[:, t]) / (den + e))
            d = torch.exp(-torch.exp(self.time_decay))
            num, den = num * d + torch.exp(k[:, t]) * v[:, t], den * d + torch.exp(k[:, t])
        return x + self.o(r * torch.stack(out, 1))


@model(lambda: (torch.randn(2, 3, 8), torch.randn(2, 5, 8)))
class Perceiver(nn.Module):
    def __init__(self):
        super().__init__()
        self.lat = nn.Parameter(torch.randn(4, 8) * 0.02)
        self.x = nn.MultiheadAttention(8, 2, batch_first=True, kdim=8, vdim=8)
        self.l = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, a, b):
        q = self.lat.expand(len(a), -1, -1)
        h = q + self.x(q, a, a)[0]
        return h + torch.tanh(self.gate) * self.l(h, b)


@model(ids(11, 2, 5))
class SharedEncDec(nn.Module):
    """T5: one embedding for encoder and decoder, a tied head, one relative bias for all layers."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Embedding(11, 8)
        self.encoder, self.decoder = Stack(self.shared), Stack(self.shared, True)
        self.lm_head = nn.Linear(8, 11, bias=False)
        self.lm_head.weight = self.shared.weight

    def forward(self, x):
        return self.lm_head(self.decoder(x, self.encoder(x)) * 8**-0.5)


class Stack(nn.Module):
    def __init__(self, emb, cross=False):
        super().__init__()
        self.embed_tokens = emb
        self.rel = nn.Embedding(9, 2)
        self.blocks = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))
        self.cross = nn.MultiheadAttention(8, 2, batch_first=True) if cross else None
        self.ln = nn.LayerNorm(8)

    def forward(self, x, mem=None):
        n = x.shape[1]
        pos = torch.arange(n, device=x.device)
        bias = (
            self.rel((pos[None] - pos[:, None]).clamp(-4, 4) + 4)
            .permute(2, 0, 1)
            .repeat(len(x), 1, 1)
        )
        h = self.embed_tokens(x)
        for b in self.blocks:
            h = h + b(h, h, h, attn_mask=bias.to(h.dtype), need_weights=False)[0]
        if self.cross is not None:
            h = h + self.cross(h, mem, mem)[0]
        return self.ln(h)


@model(ids(9, 3, 5))
class PackedRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(9, 6, padding_idx=0)
        self.rnn = nn.GRU(6, 6, batch_first=True)
        self.out = nn.Linear(6, 2)

    def forward(self, x):
        n = (x != 0).sum(1).clamp(min=1).cpu()
        self.rnn.flatten_parameters()
        p = nn.utils.rnn.pack_padded_sequence(
            self.emb(x), n, batch_first=True, enforce_sorted=False
        )
        return self.out(self.rnn(p)[1][-1])


@model(ids(11, 2, 4))
class KVCacheLlama(nn.Module):
    """buffers that a forward fills"""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(11, 8)
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8, bias=False) for _ in range(4))
        self.norm = RMS(8)
        self.out = nn.Linear(8, 11, bias=False)
        self.register_buffer("ck", torch.zeros(2, 8, 8), persistent=False)
        self.cache_v = torch.zeros(2, 8, 8)

    def forward(self, x, start_pos: int = 0):
        h = self.norm(self.emb(x))
        n = x.shape[1]
        k, v = self.k(h), self.v(h)
        self.cache_v = self.cache_v.to(h)
        self.ck[: len(x), start_pos : start_pos + n] = k.detach()
        self.cache_v[: len(x), start_pos : start_pos + n] = v.detach()
        m = torch.full((n, n), float("-inf"), device=h.device, dtype=h.dtype).triu(1)
        return self.out(self.o((self.q(h) @ k.transpose(1, 2) + m).softmax(-1) @ v))


class RMS(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x):
        return (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)).type_as(
            x
        ) * self.weight


@model(rn(4, 6))
class MuPScaled(nn.Module):
    """Learned scalars of each layer that start at 0 and 1 (ReZero)."""

    def __init__(self):
        super().__init__()
        self.l = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.re = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(3)])
        self.lam = nn.Parameter(torch.ones(3))
        self.x0 = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        x0 = x
        for i, l in enumerate(self.l):
            x = self.lam[i] * x + self.x0[i] * x0
            x = x + self.re[i] * torch.tanh(l(x))
        return x


@model(ids(13, 2, 12))
class Mlm(nn.Module):
    """masks tokens at random inside, loss over those"""

    def __init__(self):
        super().__init__()
        self.e, self.l, self.o = (
            nn.Embedding(13, 8),
            nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True),
            nn.Linear(8, 13),
        )

    def forward(self, x):
        m = torch.rand(x.shape, device=x.device) < 0.3
        y = self.o(self.l(self.e(x.masked_fill(m, 1))))
        return F.cross_entropy(y[m], x[m]) if m.any() else y.sum() * 0


@model(rn(2, 6, 8))
class SwitchTransformer(nn.Module):
    """Top-1 of 16 experts for 12 tokens: each expert is run, some on no token."""

    def __init__(self, experts=16):
        super().__init__()
        self.router = nn.Linear(8, experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)) for _ in range(experts)
        )

    def forward(self, x):
        shape, x = x.shape, x.reshape(-1, 8)
        probs = self.router(x).softmax(-1)
        gate, index = probs.max(-1)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            chosen = index == i
            out[chosen] = expert(x[chosen]) * gate[chosen, None]
        share = F.one_hot(index, len(self.experts)).float().mean(0)
        return out.reshape(shape), len(self.experts) * (share * probs.mean(0)).sum()

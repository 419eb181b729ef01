"""Which names that went and came are probably the same parameter."""

from __future__ import annotations

import pytest

from pytest_paramcheck.checks.renames import common_prefix, probable_renames


def _pairs(old, new):
    return [(r.old, r.new, r.how) for r in probable_renames(old, new)]


@pytest.mark.parametrize(
    ("old", "new", "how"),
    [
        ("head.weight", "out.weight", "'head' became 'out'"),
        ("norm.gamma", "norm.weight", "'gamma' became 'weight'"),
        ("blocks.0.attn.w", "blocks.0.attention.w", "'attn' became 'attention'"),
        ("emb.weight", "model.emb.weight", "prefix 'model.' added"),
        ("model.core.emb.weight", "emb.weight", "prefix 'model.core.' removed"),
        ("q.weight", "q.base_layer.weight", "'base_layer' added in the middle"),
        ("q.base_layer.weight", "q.weight", "'base_layer' removed from the middle"),
        ("a.b.c", "x.y.z", "it is x.y.z now"),
        ("w", "v", "it is v now"),
    ],
)
def test_signs(old: str, new: str, how: str) -> None:
    assert _pairs({old: "11x6"}, {new: "11x6"}) == [(old, new, how)]


def test_another_kind_is_no_rename() -> None:
    assert _pairs({"head.weight": "11x6"}, {"out.weight": "12x6"}) == []


def test_nothing_in_common_and_not_alone() -> None:
    assert _pairs({"a.b.c": "6"}, {"x.y.z": "6", "x.y.w": "6"}) == []


def test_each_name_is_paired_once_with_its_own_layer() -> None:
    old = {f"h.{i}.attn.w": "6x6" for i in range(12)}
    new = {f"h.{i}.attention.w": "6x6" for i in reversed(range(12))}
    assert _pairs(old, new) == [
        (f"h.{i}.attn.w", f"h.{i}.attention.w", "'attn' became 'attention'") for i in range(12)
    ]


def test_many_names_of_one_key_are_handed_out_once_each() -> None:
    old = {f"h.{i}.w": "6" for i in range(3000)}
    new = {f"h.{i + 5000}.w": "6" for i in range(3000)}
    pairs = _pairs(old, new)
    assert len({new for _, new, _ in pairs}) == len(pairs) == 3000


@pytest.mark.parametrize(
    ("names", "others", "prefix"),
    [
        (["module.a.w", "module.b.w"], ["a.w", "b.w"], "module."),
        (["module._orig_mod.a.w", "module._orig_mod.b.w"], ["a.w", "b.w"], "module._orig_mod."),
        (["module.a.w", "module.b.w"], ["module.a.w", "b.w"], ""),
        (["a.w", "b.w"], ["a.w", "b.w"], ""),
        (["module.a.w", "b.w"], ["a.w", "b.w"], ""),
        (["net.a.w", "net.b.w", "net.c.w"], ["a.w", "x.w", "y.w"], ""),
        (["net.a.w", "net.b.w", "net.c.w"], ["a.w", "b.w", "y.w"], "net."),
        (["w"], ["w"], ""),
        ([], ["w"], ""),
    ],
)
def test_common_prefix(names: list[str], others: list[str], prefix: str) -> None:
    assert common_prefix(names, others) == prefix

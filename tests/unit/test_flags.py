"""assert_frozen and assert_trainable: one answer per parameter, over all of its names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pytest_paramcheck import (
    ParamCheckError,
    ParamCheckUsageError,
    assert_frozen,
    assert_trainable,
)

from .messages import failure, usage, whole


class LM(nn.Module):
    """Three layers; the head is tied to the embedding."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.emb = nn.Embedding(5, 3)
        self.mid = nn.Linear(3, 3)
        self.head = nn.Linear(3, 5, bias=False)
        if tied:
            self.head.weight = self.emb.weight


def test_frozen_and_trainable_by_name() -> None:
    model = LM()
    model.mid.requires_grad_(False)
    assert_frozen(model, "mid")
    assert_frozen(model, nn.Linear, "!head")
    assert_trainable(model, "emb", "head")
    assert failure(assert_frozen, model, "mid", "emb") == whole(r"""
        not frozen: emb.weight, head.weight (LM)

          emb.weight, head.weight  requires_grad=True: \
        emb.weight is the same parameter as head.weight

          hint: freeze it: requires_grad_(False)
        """)
    assert failure(assert_trainable, model) == whole("""
        not trainable: mid.weight, mid.bias (LM)

          mid.weight  requires_grad=False
          mid.bias    requires_grad=False

          hint: let it train: requires_grad_(True)
        """)


def test_a_dropped_name_of_a_tied_parameter_is_still_asked() -> None:
    # named_parameters() knows it as emb.weight only
    model = LM()
    model.mid.requires_grad_(False)
    assert failure(assert_frozen, model, "mid.*", "head.*") == whole(r"""
        not frozen: emb.weight, head.weight (LM)

          emb.weight, head.weight  requires_grad=True: \
        head.weight is the same parameter as emb.weight

          hint: freeze it: requires_grad_(False)
        """)
    model.emb.requires_grad_(False)
    assert_frozen(model, "mid.*", "head.*")


def test_exactly_means_no_others() -> None:
    model = LM()
    model.mid.requires_grad_(False)
    assert_frozen(model, exactly=["mid"])
    assert_trainable(model, exactly=["emb"])  # one name of a parameter is enough
    assert_trainable(model, exactly=["emb", "head"])
    assert failure(assert_frozen, model, exactly=["mid.weight", "head"]) == whole(r"""
        not frozen: emb.weight, head.weight; frozen, but not listed: mid.bias (LM)

          not frozen:
            emb.weight, head.weight  requires_grad=True: \
        head.weight is the same parameter as emb.weight
          frozen, but not listed:
            mid.bias  requires_grad=False

          hint: freeze it: requires_grad_(False)
          hint: let it train: requires_grad_(True); if this is intended, list it
        """)


def test_exactly_nothing() -> None:
    assert_frozen(LM(), exactly=[])
    assert_trainable(LM().requires_grad_(False), exactly=[])
    assert failure(assert_trainable, LM(tied=False).mid, exactly=[]) == whole("""
        trainable, but not listed: weight, bias (Linear)

          weight  requires_grad=True
          bias    requires_grad=True

          hint: freeze it: requires_grad_(False); if this is intended, list it
        """)


def test_what_is_taken_away_by_one_name_is_taken_away_whole() -> None:
    model = LM()
    model.mid.requires_grad_(False)
    assert_frozen(model, "*", "!head")
    assert_frozen(model, exactly=["*", "!head"])
    assert_trainable(model.requires_grad_(), "emb", "mid")
    model.emb.requires_grad_(False)
    assert_trainable(model, "*", "!head")
    assert_trainable(model, exactly=["*", "!head"])
    model.mid.requires_grad_(False)
    assert failure(assert_frozen, model, exactly=["*", "!head"]) == whole(r"""
        frozen, but not listed: emb.weight, head.weight (LM)

          emb.weight, head.weight  requires_grad=False: \
        head.weight is taken away, and is the same parameter as emb.weight
        """)
    assert "leave nothing to check" in usage(assert_frozen, model, "emb", "!head")
    untied = LM(tied=False).requires_grad_(False)
    untied.head.requires_grad_(True)
    assert_frozen(untied, exactly=["*", "!head"])


def test_the_modules_of_what_is_taken_away_may_train() -> None:
    model = LM().requires_grad_(False)
    model.emb.eval()
    model.mid.eval()
    assert_frozen(model, "*", "!head", in_eval=True)
    assert failure(assert_frozen, model, "*", in_eval=True).startswith("in train mode: head.weight")


def test_trainable_needs_a_type_that_takes_a_gradient() -> None:
    model = nn.Module()
    model.codes = nn.Parameter(torch.arange(3), requires_grad=False)
    model.phase = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with torch.inference_mode():
        model.made = nn.Parameter(torch.ones(2))
    assert_trainable(model, "phase")
    assert failure(assert_trainable, model) == whole(r"""
        not trainable: codes, made (Module)

          codes  int64 takes no gradient
          made   an inference tensor: it was made under inference_mode, autograd cannot save it

          hint: convert it before it is made a parameter: nn.Parameter(x.float())
          hint: build the model outside torch.inference_mode()
        """)


def test_lazy_and_meta_parameters_have_flags() -> None:
    assert_trainable(nn.LazyLinear(2))
    assert_frozen(nn.Linear(2, 2, device="meta").requires_grad_(False))
    with pytest.raises(ParamCheckError, match=r"^not frozen: weight, bias"):
        assert_frozen(nn.LazyLinear(2))


@pytest.mark.parametrize(
    ("patterns", "options", "said"),
    [
        (("nope",), {}, "pattern 'nope' matches nothing in LM; it has emb.weight, mid.weight"),
        ((), {"exactly": ["nope"]}, "pattern 'nope' matches nothing in LM"),
        (("mid",), {"exactly": ["mid"]}, "exactly= lists all patterns there are"),
        ((), {"exactly": "mid"}, r"exactly='mid': pass a list of patterns; \[\] means no"),
        ((), {"exactly": nn.Linear}, "exactly=.*Linear.*: pass a list of patterns"),
        ((["mid"],), {}, r"a pattern is .* pass patterns one by one: \*patterns"),
    ],
)
def test_wrong_calls(patterns: Any, options: Any, said: str) -> None:
    for assertion in (assert_frozen, assert_trainable):
        with pytest.raises(ParamCheckUsageError, match=said):
            assertion(LM(), *patterns, **options)


def test_a_subject_without_parameters_is_a_wrong_call() -> None:
    for exactly in (None, []):
        with pytest.raises(ParamCheckUsageError):
            assert_frozen({"gone": None}, exactly=exactly)


@pytest.mark.parametrize("assertion", [assert_frozen, assert_trainable])
def test_values_without_flags_are_a_wrong_call(assertion: Any) -> None:
    """All tensors of a state_dict are detached: each would be frozen, whatever the model is."""
    model = LM()
    detached = {name: parameter.data for name, parameter in model.named_parameters()}
    for subject, what in (
        (model.state_dict(), "a state_dict holds"),
        (model.state_dict(keep_vars=True), "a state_dict holds"),
        (detached, "a dict of tensors holds"),
        (list(detached.items()), "these pairs hold"),
    ):
        for options in ({}, {"exactly": []}):
            assert usage(assertion, subject, **options) == (
                f"{what} values, detached from the model: who is frozen cannot be asked of "
                f"them; pass the model, or its named_parameters()"
            )


def test_functional_parameters_have_flags() -> None:
    """As torch.func takes them: the ones that train require grad, the others do not."""
    params = {name: parameter.detach().clone() for name, parameter in LM().named_parameters()}
    params["mid.weight"].requires_grad_()
    assert_trainable(params, "mid.weight")
    assert_frozen(params, "*", "!mid.weight")
    assert_trainable(params, exactly=["mid.weight"])
    assert_frozen(LM().requires_grad_(False).named_parameters())  # Parameters, all frozen


def test_a_parameter_of_thousands_of_names_is_reported_in_few_words() -> None:
    model = nn.Module()
    parameter = nn.Parameter(torch.ones(1))
    model._parameters.update({f"p{i}": parameter for i in range(2_000)})
    assert failure(assert_frozen, model, "p7") == whole(r"""
        not frozen: p{0..1999} (Module)

          p{0..1999}  requires_grad=True: p7 is the same parameter as p{0..6,8..1999}

          hint: freeze it: requires_grad_(False)
        """)


# --- in_eval ---------------------------------------------------------------------------------


def backbone() -> nn.Sequential:
    """A frozen backbone with two BatchNorms, one of them without parameters, and a head."""
    model = nn.Sequential(
        nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2, affine=False)),
        nn.Linear(2, 1),
    )
    model[0].requires_grad_(False)
    return model


def test_frozen_modules_in_evaluation_mode() -> None:
    model = backbone()
    model[0].eval()

    assert_frozen(model, "0", in_eval=True)
    assert_frozen(model, exactly=["0"], in_eval=True)
    assert_frozen(model.requires_grad_(False).eval(), in_eval=True)


def test_a_frozen_norm_in_train_mode() -> None:
    model = backbone().eval()
    model[0][2].train()
    assert_frozen(model, "0")

    with pytest.raises(ParamCheckError) as caught:
        assert_frozen(model, "0", in_eval=True)
    [finding] = caught.value.findings
    assert finding.names == ("0.2.running_mean", "0.2.running_var", "0.2.num_batches_tracked")
    assert (finding.problem, finding.found) == ("in train mode", "BatchNorm1d in train mode")
    assert finding.why == "each forward moves its statistics"
    assert finding.hint == "model[0][2].eval() after every model.train()"
    model[0][2].eval()  # the hint
    assert_frozen(model, "0", in_eval=True)


def test_who_is_not_asked_may_train() -> None:
    model = backbone()
    model[0].eval()
    shared = nn.ModuleList([model[0], model])

    assert_frozen(model, "0", in_eval=True)
    assert_frozen(shared, "0", in_eval=True)
    assert model[1].training


def test_modes_and_flags_are_told_together() -> None:
    message = failure(assert_frozen, backbone(), "1", in_eval=True)

    assert message.splitlines()[0] == (
        "not frozen: 1.weight, 1.bias; in train mode: 1.weight, 1.bias (Sequential)"
    )


def test_a_mapping_has_no_modes() -> None:
    named = dict(backbone().named_parameters())

    assert usage(assert_frozen, named, "0", in_eval=True) == (
        "in_eval=True asks modules for their mode, and a dict of tensors has none: pass the model"
    )


def test_a_model_of_names_beyond_count() -> None:
    """A module held twice at each of 20 levels has a million names, and two parameters."""
    model: nn.Module = nn.Linear(2, 2)
    for _ in range(20):
        model = nn.ModuleList([model, model])

    assert_trainable(model)
    assert "not frozen" in failure(assert_frozen, model)
    model.requires_grad_(False).eval()
    assert_frozen(model, in_eval=True)

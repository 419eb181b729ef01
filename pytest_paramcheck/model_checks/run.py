"""A case on one device: the model built from a seed, its inputs, its loss, its optimizers."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..messages.errors import ParamCheckUsageError, raise_if
from ..messages.findings import Finding
from ..messages.folding import fold_names
from ..messages.wording import shorten
from .case import DECLARED, ModelCase, NothingToCheck
from .inputs import (
    Found,
    NoInputs,
    answered,
    called,
    failing,
    first_that_runs,
    who_is_asked,
)
from .outputs import projection

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module

    from .kept_graphs import KeptGraph
else:
    Module = Tensor = KeptGraph = (
        Any  # what typing.get_type_hints finds: torch is loaded on first use
    )


class SharedBuilds(NothingToCheck):
    """Two builds share what trains: what is done to the one is done to the other."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        names = shorten(fold_names(name for f in findings for name in f.names), 3)
        super().__init__(
            f"two models built one after the other share {names}: check_built_anew says so"
        )
        self.findings = findings


class CaseRun:
    """What a whole-model check receives: a model case on one device, with its inputs and loss.

    * ``model``: one instance, which all checks look at and none may change.
    * ``build()``: a fresh instance from the same seed, to change at will.
    * ``inputs``: fresh copies of the inputs on the device; None where there are none.
    * ``inputs_from``: whose they are: ``"declared inputs"``, ``"inputs from dummy_inputs"``;
      ``""`` where there are none.
    * ``forward(model)``: the output for these inputs.
    * ``loss(model)``: the scalar loss of one forward pass.
    * ``optimizers(model)``: the declared optimizers, or Adamax over what trains.
    * ``device``: the device that models and inputs are on.
    * ``seed``: what random numbers start from in the factory, the inputs and each check.
    * ``title``: what messages call the model.
    * ``declared``: the :class:`ModelCase` itself.

    Device and dtype are those that are torch's defaults where the run is made. Inputs are those
    declared, else those of the hook ``pytest_paramcheck_inputs``, else what the model's library
    says, if it runs. ``forward`` raises :class:`NothingToCheck` without inputs, ``loss`` without
    inputs and loss.
    All raise :class:`ParamCheckUsageError` where the declared factory, loss or optimizer returns
    something of another kind.

    >>> from torch import nn
    >>> run = CaseRun(ModelCase(lambda: nn.Linear(3, 2), name="linear"))
    >>> run.title, tuple(run.model.weight.shape), run.build() is run.model
    ('linear', (2, 3), False)
    """

    def __init__(self, declared: ModelCase, seed: int = 0) -> None:
        from ..parameters.tensors.default_device import default_device

        self.declared = declared
        self.seed = seed
        self._model: Module | None = None
        self._another: Module | None = None  # builds.py
        self._latest: weakref.ref[Module] | None = None
        self._inputs: Any = None
        self._found: Found | None = None
        # Of the models that were built with some: what their constructors left of graphs.
        self._kept: list[tuple[weakref.ref[Module], list[KeptGraph]]] = []
        self.device: torch.device = default_device()
        # Of the inputs, where they are split: which, of how many; None is this rank's own.
        self._part: tuple[int, int] | None = None
        # What the latest check found that guessed inputs do not come to.
        self._left_out = ""

    @property
    def case(self) -> ModelCase:
        """Another name of ``declared``."""
        return self.declared

    @property
    def model(self) -> Module:
        """The instance that all checks look at and none changes."""
        __tracebackhide__ = True
        if self._model is None:
            self._model = self.build()
        return self._model

    @property
    def title(self) -> str:
        """What messages call the model."""
        return self.declared.name

    def build(self, seed: int | None = None) -> Module:
        """Build a fresh instance from the seed, leaving the random states as they were.

        Raises :class:`ParamCheckUsageError` where the factory hands out what it built before: a
        check that compares two instances would see one, and training would change it for all.
        Where builds share what trains, :class:`NothingToCheck`: ``check_built_anew`` says so.
        """
        __tracebackhide__ = True
        model = self._unwrapped(seed)
        if self.declared.wrap is not None:
            model = self._module(self.declared.wrap(model), "wrap")
        earlier = self._latest() if self._latest is not None else None
        for known in (self._model, earlier):
            if known is not None:
                self._refuse_again(model, known)
        self._latest = weakref.ref(model)
        from .kept_graphs import kept_graphs

        if kept := kept_graphs(model):
            self._kept.append((self._latest, kept))
        return model

    def _unwrapped(self, seed: int | None = None) -> Module:
        """Build a fresh instance from the seed that no ``wrap`` has seen."""
        __tracebackhide__ = True
        return self._module(self._seeded(self.declared.factory, seed), "factory")

    def _module(self, made: Any, maker: str) -> Module:
        __tracebackhide__ = True
        from torch import nn

        if not isinstance(made, nn.Module):
            raise ParamCheckUsageError(
                f"the {maker} of {self.title} returned {type(made).__name__}, no nn.Module"
            )
        return made

    def _refuse_again(self, model: Module, earlier: Module) -> None:
        __tracebackhide__ = True
        if model is earlier:
            raise ParamCheckUsageError(
                f"the factory of {self.title} returned the same object twice: it has to build "
                f"a new model at each call"
            )
        from ..checks.built_anew import shared_by_builds
        from ..parameters.subject.reading import take_inventory

        before, after = (take_inventory(m, allow_empty=True) for m in (earlier, model))
        if shared := shared_by_builds(before, after):
            raise SharedBuilds(shared)

    def _seeded(self, make: Callable[[], Any], seed: int | None = None) -> Any:
        __tracebackhide__ = True
        from ..parameters.running.randomness import random_states, seed_all

        with random_states([self.device]):
            seed_all(self.seed if seed is None else seed, [self.device])
            return make()

    def _look_up(self) -> Found:
        __tracebackhide__ = True
        if self._found is None:
            self._found = self._find()
        return self._found

    def _find(self) -> Found:
        __tracebackhide__ = True
        if self.declared.inputs is not None:
            return Found(self.declared.inputs, DECLARED)
        if self.declared.loss is not None:
            return Found()  # it is of the model, and brings its own
        import torch

        from ..parameters.running.preserve import put_away
        from ..parameters.running.undo import Undo

        model = self.build()  # it is run, and may change
        with Undo() as undo, undo:
            put_away(undo, model)
            if (found := answered(model)) is not None:
                return found
            models = [model]
            if self.device.type != "cpu":
                with torch.device("cpu"):
                    first = self._seeded(self.declared.factory)
                if all(p.device.type == "cpu" for p in (*first.parameters(), *first.buffers())):
                    models = [first, model]
            return first_that_runs(models, self._made_for)

    def _made_for(self, model: Module, make: Callable[[], Any]) -> Any:
        import torch

        from .parts import fresh

        of_model = (tensor.device for tensor in (*model.parameters(), *model.buffers()))
        device = next(of_model, self.device)
        return fresh(self._seeded(make), device, torch.get_default_dtype())

    @property
    def inputs(self) -> Any:
        """Fresh copies of the inputs, made from the seed where they are made, on the device."""
        __tracebackhide__ = True
        import torch

        from .parts import fresh, own_part, part_of

        if self._inputs is None:
            given = self._look_up().given
            self._inputs = self._seeded(given) if callable(given) else given
        # A forward may write into what it gets (nn.ReLU(inplace=True) as the first layer).
        copied = fresh(self._inputs, self.device, torch.get_default_dtype())
        if self.declared.split is None:
            return copied
        return part_of(copied, self.declared.split, self._part or own_part())

    @property
    def inputs_from(self) -> str:
        """Whose the inputs are; ``""`` where there are none."""
        __tracebackhide__ = True
        return self._look_up().source

    def forward(self, model: Module) -> Any:
        """Run the model on the inputs."""
        __tracebackhide__ = True
        found = self._look_up()
        if found.given is None:
            raise NoInputs(found.dropped)
        inputs = self.inputs
        if not found.guessed:
            return called(model, inputs)
        try:
            return called(model, inputs)
        except Exception as error:  # it ran before: but nobody has said that it does
            raise NothingToCheck(f"the {found.source} raise {failing(error)}") from None

    def loss(self, model: Module) -> Tensor:
        """Return the loss of one forward pass.

        A graph that the constructor left behind is a finding here, for whichever check asks: it
        can be run backward once, and says nothing of training.
        """
        __tracebackhide__ = True
        import torch

        from .kept_graphs import used_by

        if self.declared.inputs is None and self.declared.loss is not None:
            loss = self.declared.loss(model)
        else:
            output = self.forward(model)
            loss = projection(output) if self.declared.loss is None else self.declared.loss(output)
        if not isinstance(loss, torch.Tensor):
            raise ParamCheckUsageError(
                f"the loss of {self.title} returned {type(loss).__name__}, no scalar tensor"
            )
        if loss.numel() != 1:
            raise ParamCheckUsageError(
                f"the loss of {self.title} returned a tensor of shape {tuple(loss.shape)}, no "
                f"scalar: reduce it with .mean() or .sum()"
            )
        for built, kept in self._kept:
            if built() is model:
                raise_if(used_by(loss, kept), self.title)
        return loss

    def optimizers(self, model: Module) -> list[Any]:
        """Return the declared optimizers of a model, or those that stand in for them.

        Without a declaration: Adamax, and Adagrad where gradients are sparse.
        """
        __tracebackhide__ = True
        import torch

        given: Any = self.declared.optimizer
        if given is None:
            from .stand_ins import stand_ins

            return stand_ins(model)
        trainable = [p for p in model.parameters() if p.requires_grad]
        by_class = isinstance(given, type) and issubclass(given, torch.optim.Optimizer)
        made = given(trainable if by_class else model)
        made = list(made) if isinstance(made, (list, tuple)) else [made]
        for optimizer in made:
            if not isinstance(getattr(optimizer, "param_groups", None), list):
                raise ParamCheckUsageError(
                    f"the optimizer of {self.title} returned {type(optimizer).__name__}, no "
                    f"optimizer or list of them"
                )
        return made


def inputs_of(run: CaseRun) -> Found:
    """Return the inputs of a run with all that is known of them."""
    return run._look_up()


def run_on(run: CaseRun) -> str:
    """Return what a run found to run its model on; ``""`` where no check has asked yet."""
    return "" if run._found is None or run.declared.run_by else run._found.source


def guessed_from(run: CaseRun) -> str:
    """Return whose inputs a run goes by where nobody declared them; ``""`` where somebody did."""
    found = run._look_up()
    return found.source if found.guessed else ""


def note_left_out(run: CaseRun, text: str) -> None:
    """Let a run say what its guessed inputs do not come to."""
    run._left_out = text


def take_left_out(run: CaseRun) -> str:
    """Return what the check that just ran has noted so; the next one starts without."""
    text, run._left_out = run._left_out, ""
    return text


class LatestRun:
    """The one case run that is kept alive: a session does not hold every model it has checked."""

    def __init__(self) -> None:
        self._key: object = None
        self._run: CaseRun | None = None

    def get(self, declared: ModelCase, seed: int) -> CaseRun:
        """Return the run of a case under torch's current defaults."""
        import torch

        from ..parameters.tensors.default_device import default_device

        # A wrapped model belongs to the group of its test.
        group = torch.distributed.group.WORLD if declared.wrap is not None else None
        # The case itself and not its id, which another case could have after it.
        key = declared, seed, default_device(), torch.get_default_dtype(), who_is_asked(), group
        if self._run is None or self._key != key:
            self._run = None  # before the next model is built
            self._key, self._run = key, CaseRun(declared, seed)
        return self._run

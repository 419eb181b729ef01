"""Training with an interruption and training without one, from one start.

The first run saves half way and goes on; the second loads that into fresh objects and goes on
from there. Where they end alike, that is all that is run. Where they do not, more runs tell why:
one that never saves, the same once more, and one that is stopped right after the load.
"""

from __future__ import annotations

import io
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import nn

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import first_line, join_words
from ..subject.leaves import leaves_of
from .randomness import keep_random_states
from .resume_state import Difference, Objects, Same, differences, held_beside
from .undo import Restore

#: How many things that are held beside the state are tried one by one.
_TRIED = 8


@dataclass
class Resumed:
    """How a resumed run ended, against one that was not interrupted.

    ``ended`` is empty where it resumes. ``lost`` is what was otherwise right after the load,
    ``beside`` what no state_dict holds and what, put back by hand, made it resume: its path,
    what it was then and what after the load, and whether it is a model's.
    """

    title: str
    idle: bool = False
    unsaved: tuple[str, str] | None = None
    refused: tuple[str, str] | None = None
    uneven: list[Difference] = field(default_factory=list)
    disturbed: list[Difference] = field(default_factory=list)
    ended: list[Difference] = field(default_factory=list)
    lost: list[Difference] = field(default_factory=list)
    beside: list[tuple[str, Any, Any, bool]] = field(default_factory=list)
    random: bool = False


def train_and_resume(
    build: Callable[[], Any],
    step: Callable[[Any], object],
    save: Callable[[Any], Any] | None,
    load: Callable[[Any, Any], object] | None,
    *,
    steps: int,
    same: Same,
    devices: Iterable[torch.device] = (),
) -> Resumed:
    """Take ``steps`` steps, save, load into a fresh build, take as many again; and without.

    The random states at the call are those that every run starts from. Those at the break are
    given back after the load, unless ``load`` is given: it has to do what a script does.
    """
    __tracebackhide__ = True
    runs = _Runs(build, step, save, load, steps, list(devices))
    through = runs.start()
    resumed = Resumed(through.title)
    through.take(steps)
    try:
        saved = runs.saved(through)
    except _Refused as refused:
        resumed.unsaved = refused.key, refused.reason
        return resumed
    at_break = keep_random_states(runs.devices)
    through.take(steps)
    again = runs.start()
    resumed.idle = not _any(_moved(again.objects, through.objects, same))
    try:
        runs.resume(again, saved, at_break)
    except _Refused as refused:
        resumed.refused = refused.key, refused.reason
        return resumed
    again.take(steps)
    if not _any(differences(through.objects, again.objects, same)):
        return resumed

    plain = runs.uninterrupted()
    reference = through
    if _any(differences(plain.objects, through.objects, same)):
        resumed.uneven = list(differences(plain.objects, runs.uninterrupted().objects, same))
        if resumed.uneven:
            return resumed
        resumed.disturbed = list(differences(plain.objects, through.objects, same))
        reference = plain
    resumed.ended = list(differences(reference.objects, again.objects, same))
    if resumed.ended:
        _explain(resumed, runs, reference.objects, saved, at_break, same)
    return resumed


def _explain(
    resumed: Resumed, runs: _Runs, wanted: Objects, saved: Any, at_break: Restore, same: Same
) -> None:
    """Note what is otherwise right after the load, and what of it decides."""
    __tracebackhide__ = True
    stopped = runs.start()
    stopped.take(runs.steps)
    runs.saved(stopped)  # what saving does to the objects belongs to the state at the break
    loaded = runs.start()
    runs.resume(loaded, saved, at_break)
    resumed.lost = list(differences(stopped.objects, loaded.objects, same))
    before, after = (held_beside(run.objects) for run in (stopped, loaded))
    candidates = [
        path
        for path, held in before.items()
        if path in after and not _same_leaves(held.value, after[path].value, same)
    ]
    lost = {difference.key for difference in resumed.lost}

    def ends_alike(paths: Sequence[str], random: bool) -> bool:
        """Whether it resumes once these, and all that a state_dict holds, are put back."""
        __tracebackhide__ = True
        run = runs.start()
        runs.resume(run, saved, at_break)
        try:
            for key in lost:
                run.objects[key].load_state_dict(_written(key, stopped.objects[key].state_dict()))
        except Exception:
            return False  # what is lost is known; the rest cannot be told
        here = held_beside(run.objects)
        for path in paths:
            if path in here:
                here[path].write(before[path].value)
        if random:
            at_break()
        run.take(runs.steps)
        return not _any(differences(wanted, run.objects, same))

    if lost and ends_alike((), random=False):
        return  # that is all
    if runs.load is not None and ends_alike((), random=True):
        resumed.random = True
        return
    if not candidates:
        return
    resumed.random = not ends_alike(candidates, random=False)
    if resumed.random and (runs.load is None or not ends_alike(candidates, random=True)):
        resumed.random = False
        return
    needed = list(candidates)
    for path in candidates[:_TRIED]:
        fewer = [other for other in needed if other != path]
        if fewer and ends_alike(fewer, random=resumed.random):
            needed = fewer
    resumed.beside = [
        (path, before[path].value, after[path].value, before[path].in_model) for path in needed
    ]


def _same_leaves(before: Any, after: Any, same: Same) -> bool:
    ours, theirs = leaves_of(before), leaves_of(after)
    return ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in ours)


def _moved(before: Objects, after: Objects, same: Same) -> Iterable[Difference]:
    """What training changed: an optimizer counts its steps whatever they do."""
    has_model = any(isinstance(held, nn.Module) for held in before.values())
    return (d for d in differences(before, after, same) if d.is_entry or not has_model)


def _any(found: Iterable[Difference]) -> bool:
    return bool(list(islice(found, 1)))


class _Refused(Exception):  # noqa: N818 - an outcome that is told, as a finding
    def __init__(self, key: str, error: Exception, why: str = "") -> None:
        super().__init__(key)
        self.key = key
        self.reason = f"{type(error).__name__}: {first_line(error, 160)}".removesuffix(": ") + why


@dataclass
class _Run:
    """What one build gave, as the user's functions get it and as objects by key."""

    given: Any
    objects: Objects
    step: Callable[[Any], object]
    title: str

    def take(self, steps: int) -> None:
        __tracebackhide__ = True
        for _ in range(steps):
            self.step(self.given)


@dataclass
class _Runs:
    build: Callable[[], Any]
    step: Callable[[Any], object]
    save: Callable[[Any], Any] | None
    load: Callable[[Any, Any], object] | None
    steps: int
    devices: list[torch.device]

    def __post_init__(self) -> None:
        self._start = keep_random_states(self.devices)
        self._built: list[weakref.ref[Any]] = []

    def start(self) -> _Run:
        """Build anew, from the random states of the beginning."""
        __tracebackhide__ = True
        self._start()
        given = self.build()
        objects = self._objects(given)
        known = {id(held) for one in self._built if (held := one()) is not None}
        again = [key for key, held in objects.items() if id(held) in known]
        if again:
            raise ParamCheckUsageError(
                f"build() returned the same {_called(again[0])} twice: it has to build anew at "
                f"each call"
            )
        self._built += [weakref.ref(held) for held in objects.values()]
        models = [held for held in objects.values() if isinstance(held, nn.Module)]
        title = type(models[0]).__name__ if models else type(given).__name__
        return _Run(given, objects, self.step, title)

    def _objects(self, given: Any) -> Objects:
        __tracebackhide__ = True
        if isinstance(given, nn.Module) or not isinstance(given, Mapping):
            objects: Objects = {"": given}
        else:
            objects = {str(key): held for key, held in given.items()}
        without = [
            f"{key!r}: {type(held).__name__}" if key else type(held).__name__
            for key, held in objects.items()
            if not callable(getattr(held, "state_dict", None))
        ]
        if without or not objects:
            raise ParamCheckUsageError(
                f"build() returns a model, or a mapping of objects with a state_dict(); got "
                f"{', '.join(without) or 'an empty mapping'}"
            )
        return objects

    def uninterrupted(self) -> _Run:
        """Train on without a break, and without saving."""
        __tracebackhide__ = True
        run = self.start()
        run.take(2 * self.steps)
        return run

    def saved(self, run: _Run) -> Any:
        """Save as ``save`` says, and bring it through ``torch.save``: nothing is shared."""
        __tracebackhide__ = True
        if self.save is not None:
            return _written("", self.save(run.given))
        saved: dict[str, Any] = {}
        for key, held in run.objects.items():  # a comprehension is a frame that pytest shows
            saved[key] = held.state_dict()
        return {key: _written(key, state) for key, state in saved.items()}

    def resume(self, run: _Run, saved: Any, at_break: Restore) -> None:
        """Load what was saved into fresh objects, and go on from the random states as saved."""
        __tracebackhide__ = True
        if self.load is not None:
            given = isinstance(run.given, nn.Module) or not isinstance(run.given, Mapping)
            plain = saved[""] if self.save is None and given else saved
            self.load(run.given, _written("", plain))
            return
        whole = self.save is not None and list(run.objects) == [""]
        states = {"": saved} if whole else saved
        if not isinstance(states, Mapping) or states.keys().isdisjoint(run.objects):
            raise ParamCheckUsageError(
                f"save() returned {type(saved).__name__}, no state of "
                f"{join_words([_called(key) for key in run.objects], 'or')}: say with load= how "
                f"it is loaded"
            )
        for key, held in run.objects.items():
            if key not in states:
                continue  # save= left it out: what is lost is said
            try:
                held.load_state_dict(_written(key, states[key]))
            except KeyError as error:
                raise _Refused(key, error, _left_out(states[key], error)) from None
            except Exception as error:  # whatever a load raises
                raise _Refused(key, error) from None
        at_break()


def _left_out(saved: Any, error: KeyError) -> str:
    """Say so where a load asks for what its own ``state_dict()`` did not save."""
    asked = error.args[0] if error.args else None
    if isinstance(saved, Mapping) and isinstance(asked, str) and asked not in saved:
        return ", which its state_dict() does not have"
    return ""


def _called(key: str) -> str:
    return repr(key) if key else "model"


def _written(key: str, saved: Any) -> Any:
    """Return what torch.load() reads of what torch.save() wrote."""
    file = io.BytesIO()
    try:
        torch.save(saved, file)
        file.seek(0)
        # Written a moment ago, from the user's own objects. Torch saves a tensor whose memory was
        # freed, and fails to read it.
        return torch.load(file, weights_only=False)
    except Exception as error:  # whatever pickle, or an object of the user's, raises
        raise _Refused(key, error) from None

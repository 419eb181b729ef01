"""Read from a method's source: what it takes to come to a place in it, in terms of arguments.

Only what the source says for certain: a place is behind an argument where a condition on the way
to it asks for that argument, or for what is computed from nothing else, and does not hold for the
value that the argument had. A condition on a module's own attributes is none of these.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .calls import Arguments
from .ways import Condition, block


@dataclass(frozen=True, slots=True)
class Site:
    """An expression in a method, and the conditions on the way to it."""

    node: ast.AST
    conditions: tuple[Condition, ...]


class Source:
    """The source of one function, and what of it can be asked. Raises ``ValueError`` for none."""

    def __init__(self, function: Callable[..., Any]) -> None:
        try:
            text = textwrap.dedent(inspect.getsource(function))
            tree = ast.parse(text).body[0]
        except (OSError, TypeError, SyntaxError, IndexError) as error:
            raise ValueError("there is no source") from error
        if not isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef)):
            raise ValueError("it is no function")
        every = [*tree.args.posonlyargs, *tree.args.args]
        if not every:
            raise ValueError("it is no method")
        self.itself = every[0].arg
        self.sites = [Site(node, tuple(on_the_way)) for node, on_the_way in block(tree.body, [])]
        self.parents = {
            child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)
        }
        self.defaults = _defaults(function)
        self.locals = _locals(tree)
        self._tree = tree

    def uses(self, attribute: str, *, of_result: bool = False) -> list[Site]:
        """Return where it uses what ``self.attribute`` is: asking whether it is there is no use.

        The attribute may be one of another, ``"encoder.head"``.

        ``of_result``: where it uses what was computed with it, as far as that has a name.
        """
        found: list[Site] = []
        seen: set[str] = set()
        open_sites = [site for site in self.sites if self._is(site.node, attribute)]
        while open_sites:
            site = open_sites.pop(0)
            if self._asked_only(site.node):
                continue
            names = [name for name in self._named(site.node, of_result) if name not in seen]
            if not names:
                found.append(site)
            # Another name for it: what matters is where that one is used.
            seen.update(names)
            open_sites += [o for name in names for o in self.sites if _is_load(o.node, name)]
        return found

    def _named(self, node: ast.AST, of_result: bool) -> list[str]:
        """Return the names that a statement gives to an expression, or to what it is part of."""
        if members := self._gone_through(node):
            return members
        parent = self.parents.get(node)
        while of_result and isinstance(parent, (ast.expr, ast.keyword)):
            parent = self.parents.get(parent)
        return _names_of(parent.targets) if isinstance(parent, ast.Assign) else []

    def _gone_through(self, node: ast.AST) -> list[str]:
        """Return the name that a loop gives to each member of a list of modules."""
        position = None
        parent = self.parents.get(node)
        while parent is not None and not isinstance(parent, (ast.For, ast.comprehension)):
            match parent:
                case ast.Attribute(attr="values" | "children" | "items"):
                    position = 1 if parent.attr == "items" else position
                case ast.Call(func=ast.Name(id="zip"), args=paired) if node in paired:
                    position = paired.index(node)
                case ast.Call(func=ast.Name(id="enumerate"), args=[first]) if first is node:
                    position = 1
                case ast.Call(func=ast.Name(id="reversed")) | ast.Call(func=ast.Attribute()):
                    pass
                case _:
                    return []
            node, parent = parent, self.parents.get(parent)
        if parent is None or parent.iter is not node:
            return []
        target = parent.target
        if position is not None and isinstance(target, ast.Tuple) and position < len(target.elts):
            target = target.elts[position]
        return [target.id] if isinstance(target, ast.Name) else []

    def calls(self, method: str) -> list[Site]:
        """Return where it calls another of its own methods, or that of a base class."""
        return [site for site in self.sites if self._is_call(site.node, method)]

    def called_directly(self, site: Site) -> bool:
        """Whether a use is a call of the module itself, or of one that it holds."""
        node = site.node
        parent = self.parents.get(node)
        if isinstance(parent, ast.Subscript) and parent.value is node:
            node, parent = parent, self.parents.get(parent)
        return isinstance(parent, ast.Call) and parent.func is node

    def behind(self, site: Site, given: Arguments) -> str:
        """Return which arguments keep a run from a place, ``"mask is None"``; ``""`` for none."""
        sources = self._absent(given)
        for condition in (*site.conditions, *self._members(site.node)):
            if said := self._asks(condition.test, sources, given):
                known = _truth(condition.test, sources, given)
                if condition.wanted is None or known is not condition.wanted:
                    return said
        return ""

    def _members(self, node: ast.AST) -> list[Condition]:
        """Return what decides which members of a list of modules are used."""
        match self.parents.get(node):
            case ast.Subscript(value=value, slice=index) if value is node:
                return [Condition(index, None)]
            case ast.Call(func=ast.Name(id="zip"), args=paired):
                return [Condition(each, True) for each in paired if each is not node]
        return []

    def _absent(self, given: Arguments) -> dict[str, str]:
        """Return the names that hold nothing but arguments that were left out, with these."""
        found = {
            name: f"{name} is {value!r}" if value != () else f"{name} is empty"
            for name, value in given.values.items()
            if value is None or value is False or value == () or self._is_default(name, value)
        }
        found |= {name: f"{name} is empty" for name, keys in given.keys.items() if not keys}
        assigned: dict[str, list[ast.expr]] = {}
        for node in ast.walk(self._tree):
            for targets, value in _assigned(node):
                for name in _names_of(targets):
                    assigned.setdefault(name, []).append(value)
        # A name that something else is put into as well says nothing of the argument.
        arguments = dict(found)
        for _ in range(len(assigned) + 1):
            now = {name: said for name, said in arguments.items() if name not in assigned}
            for name, values in assigned.items():
                before = arguments.get(name, "")
                parts = [self._asks(value, {**arguments, **found}, given) for value in values]
                if all(parts) and (before or name not in given.values):
                    now[name] = before or parts[0]
            if now == found:
                break
            found = now
        return found

    def _is_default(self, name: str, value: object) -> bool:
        default = self.defaults.get(name, inspect.Parameter.empty)
        return type(default) is type(value) and default == value

    def _asks(self, test: ast.expr, sources: dict[str, str], given: Arguments) -> str:
        """Return which left-out arguments an expression asks for; ``""`` where it does not."""
        if isinstance(test, (ast.BoolOp, ast.Compare, ast.UnaryOp, ast.IfExp)):
            parts = [
                self._asks(part, sources, given)
                for part in ast.iter_child_nodes(test)
                if isinstance(part, ast.expr)
            ]
            said = next(filter(None, parts), "")
            return said or _missing_key(test, given)
        if said := _missing_key(test, given):
            return said
        names = [
            node.id
            for node in ast.walk(test)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        ]
        local = [name for name in names if name != self.itself and name in self.locals]
        if not local or any(name not in sources for name in local):
            return ""
        return sources[local[0]]

    def _is(self, node: ast.AST, attribute: str) -> bool:
        if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Load):
            return False
        if node.attr != attribute.rpartition(".")[2]:
            return False
        return ast.unparse(node) == f"{self.itself}.{attribute}"

    def _is_call(self, node: ast.AST, method: str) -> bool:
        if not isinstance(node, ast.Attribute) or node.attr != method:
            return False
        of = node.value
        by_super = isinstance(of, ast.Call) and isinstance(of.func, ast.Name)
        return by_super or (isinstance(of, ast.Name) and of.id == self.itself)

    def _asked_only(self, node: ast.AST) -> bool:
        """Whether an expression is looked at for what it is, not for its values."""
        parent = self.parents.get(node)
        if isinstance(parent, ast.Attribute):
            return parent.attr in _ASKED or self._asked_only(parent)
        if isinstance(parent, ast.Compare):
            return all(isinstance(op, (ast.Is, ast.IsNot)) for op in parent.ops)
        if isinstance(parent, (ast.If, ast.IfExp)):
            return parent.test is node
        if isinstance(parent, ast.UnaryOp):
            return isinstance(parent.op, ast.Not)
        return False


#: What of a module or a tensor is no use of its values.
_ASKED = frozenset({"dtype", "device", "shape", "requires_grad", "training", "ndim"})


def _locals(tree: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    arguments = tree.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    return {one.arg for one in every} | set(_names_of([tree]))


def _defaults(function: Callable[..., Any]) -> dict[str, object]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {one.name: one.default for one in parameters}


def _assigned(node: ast.AST) -> Iterator[tuple[list[ast.expr], ast.expr]]:
    if isinstance(node, ast.Assign):
        yield node.targets, node.value
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and node.value is not None:
        yield [node.target], node.value
    elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
        yield [node.target], node.iter
    elif isinstance(node, ast.withitem) and node.optional_vars is not None:
        yield [node.optional_vars], node.context_expr


def _names_of(targets: Sequence[ast.AST]) -> list[str]:
    return [
        node.id
        for target in targets
        for node in ast.walk(target)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]


def _is_load(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)


def _missing_key(node: ast.AST, given: Arguments) -> str:
    """Return what an expression asks a mapping for that was not in it."""
    asked: ast.expr | None = None
    of: ast.expr | None = None
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        if isinstance(node.ops[0], (ast.In, ast.NotIn)):
            asked, of = node.left, node.comparators[0]
    elif isinstance(node, ast.Subscript):
        asked, of = node.slice, node.value
    else:
        match node:
            case ast.Call(func=ast.Attribute(value=value, attr="get" | "pop"), args=[key, *_]):
                asked, of = key, value
    if not isinstance(of, ast.Name) or not isinstance(asked, ast.Constant):
        return ""
    keys = given.keys.get(of.id)
    if keys is None or not isinstance(asked.value, str) or asked.value in keys:
        return ""
    return f"{asked.value} is not given"


def _truth(test: ast.expr, sources: dict[str, str], given: Arguments) -> bool | None:
    """Return what a test comes out as for the arguments that were left out; None: not known."""
    if isinstance(test, ast.Name):
        if test.id in sources and test.id in given.values:
            return bool(given.values[test.id])
        return False if given.keys.get(test.id) == frozenset() else None
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = _truth(test.operand, sources, given)
        return None if inner is None else not inner
    if isinstance(test, ast.BoolOp):
        decides = isinstance(test.op, ast.Or)
        parts = [_truth(value, sources, given) for value in test.values]
        return decides if decides in parts else None if None in parts else not decides
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return None
    if _missing_key(test, given):
        return isinstance(test.ops[0], ast.NotIn)
    left, right = test.left, test.comparators[0]
    if not isinstance(left, ast.Name) or not isinstance(right, ast.Constant):
        return None
    if left.id not in sources or left.id not in given.values:
        return None
    value = given.values[left.id]
    match test.ops[0]:
        case ast.Is() | ast.Eq():
            return value == right.value
        case ast.IsNot() | ast.NotEq():
            return value != right.value
    return None

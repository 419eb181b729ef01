"""What it takes to come to each place in a function: its syntax, walked with the conditions."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Condition:
    """What has to be true, or false, to come to a place; None: something that decides which."""

    test: ast.expr
    wanted: bool | None


def block(
    body: Sequence[ast.stmt], on_the_way: Sequence[Condition]
) -> Iterator[tuple[ast.AST, list[Condition]]]:
    """Yield every node of some statements with what it takes to come there."""
    conditions = list(on_the_way)
    for statement in body:
        yield from _visit(statement, conditions)
        if isinstance(statement, ast.If):
            # Behind what leaves the block it takes the opposite.
            if _leaves(statement.body):
                conditions = [*conditions, *_conditions(statement.test, False)]
            elif _leaves(statement.orelse):
                conditions = [*conditions, *_conditions(statement.test, True)]


def _visit(
    node: ast.AST, on_the_way: Sequence[Condition]
) -> Iterator[tuple[ast.AST, list[Condition]]]:
    now = list(on_the_way)
    yield node, now
    if isinstance(node, (ast.If, ast.IfExp, ast.While)):
        yield from _visit(node.test, now)
        yield from _part(node.body, [*now, *_conditions(node.test, True)])
        yield from _part(node.orelse, [*now, *_conditions(node.test, False)])
    elif isinstance(node, (ast.For, ast.AsyncFor)):
        yield from _visit(node.iter, now)
        yield from block(node.body, [*now, *_over(node.iter)])
        yield from block(node.orelse, now)
    elif isinstance(node, ast.Match):
        yield from _visit(node.subject, now)
        for case in node.cases:
            yield from block(case.body, [*now, Condition(node.subject, None)])
    elif isinstance(node, ast.BoolOp):
        wanted = isinstance(node.op, ast.And)
        for value in node.values:
            yield from _visit(value, now)
            now = [*now, *_conditions(value, wanted)]
    elif isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
        for generator in node.generators:
            yield from _visit(generator.iter, now)
            now = [*now, *_over(generator.iter)]
            for test in generator.ifs:
                yield from _visit(test, now)
                now = [*now, *_conditions(test, True)]
        results = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        for result in results:
            yield from _visit(result, now)
    else:
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                yield from block(value, now)
            elif isinstance(value, list):
                for one in value:
                    if isinstance(one, ast.AST):
                        yield from _visit(one, now)
            elif isinstance(value, ast.AST):
                yield from _visit(value, now)


def _part(
    part: ast.expr | list[ast.stmt], on_the_way: Sequence[Condition]
) -> Iterator[tuple[ast.AST, list[Condition]]]:
    return block(part, on_the_way) if isinstance(part, list) else _visit(part, on_the_way)


def _over(iterated: ast.expr) -> list[Condition]:
    """Return what it takes to be inside a loop: each of what is gone through together."""
    called = iterated.func if isinstance(iterated, ast.Call) else None
    if isinstance(called, ast.Name) and called.id in _PAIRING and isinstance(iterated, ast.Call):
        return [Condition(each, True) for each in iterated.args]
    return [Condition(iterated, True)]


_PAIRING = frozenset({"zip", "enumerate", "reversed"})


def _conditions(test: ast.expr, wanted: bool) -> list[Condition]:
    """Return what has to hold one by one for a test to come out as wanted."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _conditions(test.operand, not wanted)
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) is wanted:
        return [one for value in test.values for one in _conditions(value, wanted)]
    return [Condition(test, wanted)]


def _leaves(body: Sequence[ast.stmt]) -> bool:
    # Not by an error: what no run may get past decides nothing about those that do.
    return bool(body) and isinstance(body[-1], (ast.Return, ast.Continue, ast.Break))

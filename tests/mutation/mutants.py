"""Speaks with Cosmic Ray: which mutants a file has."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.ast.ast_query import ASTQuery
from cosmic_ray.util import read_python_source
from cosmic_ray.work_item import MutationSpec

#: Cosmic Ray replaces each operator by each other one. Most of those fail wherever the line is
#: reached at all; these are what an author gets wrong: the negation, the border, the opposite.
REPLACED = {
    "ReplaceComparisonOperator": (
        *("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is"),
        *("Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt"),
    ),
    "ReplaceBinaryOperator": (
        *("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Div", "Mod_FloorDiv", "Pow_Mul"),
        *("BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitOr", "LShift_RShift", "RShift_LShift"),
    ),
    "ReplaceUnaryOperator": ("USub_UAdd", "Delete_USub", "Delete_Invert", "Delete_Not"),
}

OPERATORS = (
    *(f"core/{kind}_{change}" for kind, changes in REPLACED.items() for change in changes),
    *("core/AddNot", "core/ReplaceAndWithOr", "core/ReplaceOrWithAnd"),
    *("core/ReplaceTrueWithFalse", "core/ReplaceFalseWithTrue", "core/NumberReplacer"),
    *("core/ReplaceBreakWithContinue", "core/ReplaceContinueWithBreak"),
    *("core/ExceptionReplacer", "core/RemoveDecorator", "core/ZeroIterationForLoop"),
)


def places_of(path: Path) -> list[list[MutationSpec]]:
    """Find the places of a file that can be changed, each with its mutants."""
    annotations = list(_annotations(read_python_source(path)))
    places: dict[object, list[MutationSpec]] = {}
    for mutant in _all_mutants(path):
        if not any(start <= mutant.start_pos < end for start, end in annotations):
            places.setdefault(mutant.start_pos, []).append(mutant)
    return list(places.values())


def _all_mutants(path: Path) -> Iterator[MutationSpec]:
    tree = get_ast_from_path(path)
    nodes = list(ast_nodes(tree))
    for name in OPERATORS:
        operator = cosmic_ray.plugins.get_operator(name)()
        positions = (
            (node, start, end) for node in nodes for start, end in operator.mutation_positions(node)
        )
        for occurrence, (node, start, end) in enumerate(positions):
            where = ASTQuery(node).get_definition_name()
            yield MutationSpec(path, name, occurrence, start, end, {}, where)


def _annotations(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Find where a source has annotations: no import of the package evaluates any."""
    for node in ast.walk(ast.parse(source)):
        found = getattr(node, "annotation", None) or getattr(node, "returns", None)
        if isinstance(found, ast.expr) and found.end_lineno and found.end_col_offset:
            yield (found.lineno, found.col_offset), (found.end_lineno, found.end_col_offset)

"""`--where EXPR`: a small language over a chunk's columns, compiled to functions. No eval."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import BadRequest

Names = Mapping[str, Any]
Test = Callable[[Names], Any]
OF_PAIR = ("size", "usable", "flags", "state", "arena")  # the same for all chunks of a kind
NAMES = ("address", "user", *OF_PAIR, "bin", "thread", "owner")
MOST_BITS = 128  # of a number in an expression

_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


class Where(NamedTuple):
    """An expression in two parts; a chunk passes where both hold."""

    of_pair: tuple[Test, ...]  # what asks for nothing but OF_PAIR
    of_chunk: tuple[Test, ...]  # the rest


def compile_where(text: str) -> Where:
    """Return what an expression such as `size > 0x100 and state == "used"` means.

    Names are NAMES; a value that is not known is None, and a comparison with it is false.

    :raises BadRequest: if it is no expression of this language; says what is.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _bad(text, "it is no expression") from error
    of_pair: list[Test] = []
    of_chunk: list[Test] = []
    for part in _parts(tree.body):
        test = _node(part, text)
        names = {node.id for node in ast.walk(part) if isinstance(node, ast.Name)}
        (of_pair if names <= {*OF_PAIR} else of_chunk).append(test)
    return Where(tuple(of_pair), tuple(of_chunk))


def _parts(node: ast.expr) -> list[ast.expr]:
    """Return what stands between the `and`s of an expression."""
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        return [part for value in node.values for part in _parts(value)]
    return [node]


def _bad(text: str, why: str) -> BadRequest:
    return BadRequest(
        f"--where {text!r}: {why}",
        f"names: {', '.join(NAMES)}; operators: and or not == != < <= > >= in + - * // % & | ^",
    )


def _node(node: ast.expr, text: str) -> Test:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, str)):
        return _constant(node.value, text)
    if isinstance(node, ast.Name):
        return _name(node.id, text)
    if isinstance(node, ast.BoolOp):
        parts = [_node(value, text) for value in node.values]
        if isinstance(node.op, ast.And):
            return lambda names: all(part(names) for part in parts)
        return lambda names: any(part(names) for part in parts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        inner = _node(node.operand, text)
        if isinstance(node.op, ast.Not):
            return lambda names: not inner(names)
        return lambda names: -inner(names)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _binary(node, text)
    if isinstance(node, ast.Compare):
        return _compare(node, text)
    raise _bad(text, f"{type(node).__name__} is not part of the language")


def _constant(value: int | str, text: str) -> Test:
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise _bad(text, "a number is too large")
    return lambda _names: value


def _name(name: str, text: str) -> Test:
    if name not in NAMES:
        raise _bad(text, f"{name} is no column")
    return lambda names: names[name]


def _binary(node: ast.BinOp, text: str) -> Test:
    left, right = _node(node.left, text), _node(node.right, text)
    function = _BINARY[type(node.op)]

    def apply(names: Names) -> int | None:
        a, b = left(names), right(names)
        if not isinstance(a, int) or not isinstance(b, int):
            return None
        try:
            return function(a, b) & ((1 << MOST_BITS) - 1) if a >= 0 and b >= 0 else function(a, b)
        except ZeroDivisionError:
            return None

    return apply


def _compare(node: ast.Compare, text: str) -> Test:
    if any(type(op) not in _COMPARE for op in node.ops):
        raise _bad(text, "this comparison is not part of the language")
    operands = [_node(value, text) for value in (node.left, *node.comparators)]
    functions = [_COMPARE[type(op)] for op in node.ops]

    def apply(names: Names) -> bool:
        values = [operand(names) for operand in operands]
        if any(value is None for value in values):
            return False
        try:
            pairs = zip(functions, values, values[1:])
            return all(function(a, b) for function, a, b in pairs)
        except TypeError:
            return False

    return apply

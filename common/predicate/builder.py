"""The parts of a predicate, each made out of the tokens of its text while they are parsed.

Tested in tests/common/predicate/test_predicate.py.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from lark import Token, Transformer, v_args

from nextscene.common.errors import UsageError
from nextscene.common.predicate.values import Literal, column_pair, like_matcher, literal_pair, literal_views, text_of

MAX_NESTING = 50
KEYWORDS = ("AND", "OR", "NOT", "IN", "LIKE", "IS", "NULL", "TRUE", "FALSE")

Row = Mapping[str, Any]
Test = Callable[[Row], bool]

_COMPARISONS: Mapping[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "=": ("=", operator.eq),
    "==": ("=", operator.eq),
    "!=": ("!=", operator.ne),
    "<": ("<", operator.lt),
    "<=": ("<=", operator.le),
    ">": (">", operator.gt),
    ">=": (">=", operator.ge),
}
_SHOWN = 40
_PLAIN = re.compile(rf"(?!(?:{'|'.join(KEYWORDS)})\b)[^\W\d]\w*", re.IGNORECASE)


class PredicateError(UsageError):
    """A predicate that cannot be read. The message shows the place, what was expected there, and the remedy."""


class Column(NamedTuple):
    """A column, or what a path into its objects leads to."""

    path: tuple[str, ...]

    @property
    def text(self) -> str:
        return ".".join(name if _PLAIN.fullmatch(name) else _quoted(name, "`") for name in self.path)

    def node(self, text: str, test: Test) -> Node:
        return Node(text, frozenset(self.path[:1]), test)

    def reader(self) -> Callable[[Row], Any]:
        first, *others = self.path
        if not others:
            return lambda row: row.get(first)

        def read(row: Row) -> Any:
            found = row.get(first)
            for name in others:
                found = found.get(name) if isinstance(found, Mapping) else None
            return found

        return read


class Value(NamedTuple):
    """A literal."""

    value: Literal

    @property
    def text(self) -> str:
        if isinstance(self.value, str):
            return _quoted(self.value, "'")
        return str(self.value).lower() if isinstance(self.value, bool) else str(self.value)


class Node(NamedTuple):
    """A predicate or a part of one. `rank` is 0 for OR, 1 for AND, 2 for all else; `nesting` counts NOT and ( )."""

    text: str
    columns: frozenset[str]
    test: Test
    rank: int = 2
    nesting: int = 0

    def within(self, rank: int) -> str:
        return self.text if self.rank >= rank else f"({self.text})"

    def deeper(self) -> int:
        if self.nesting >= MAX_NESTING:
            raise PredicateError(
                f"the predicate nests NOT and brackets deeper than {MAX_NESTING} levels, around"
                f" {self.text[:_SHOWN]!r}; write it with fewer"
            )
        return self.nesting + 1


@v_args(inline=True)
class Builder(Transformer[Token, Any]):
    """Makes nodes out of tokens while they are parsed, so that nothing recurs over the nesting of the text."""

    def disjunction(self, *nodes: Node) -> Node:
        tests = tuple(node.test for node in nodes)
        return _joined(nodes, " or ", 0, lambda row: any(test(row) for test in tests))

    def conjunction(self, *nodes: Node) -> Node:
        tests = tuple(node.test for node in nodes)
        return _joined(nodes, " and ", 1, lambda row: all(test(row) for test in tests))

    def negation(self, node: Node) -> Node:
        test = node.test
        return Node(f"not {node.within(2)}", node.columns, lambda row: not test(row), nesting=node.deeper())

    def group(self, node: Node) -> Node:
        return node._replace(nesting=node.deeper())

    def comparison(self, left: Column | Value, sign: Token, right: Column | Value) -> Node:
        written, compare = _COMPARISONS[sign]
        text = f"{left.text} {written} {right.text}"
        if isinstance(left, Column) and isinstance(right, Column):
            columns = frozenset((left.path[0], right.path[0]))
            return Node(text, columns, _columns_test(left.reader(), compare, right.reader()))
        if isinstance(left, Column) and isinstance(right, Value):
            return left.node(text, _literal_test(left.reader(), compare, right.value))
        if isinstance(left, Value) and isinstance(right, Column):
            return right.node(text, _literal_test(right.reader(), lambda a, b: compare(b, a), left.value))
        raise PredicateError(f"the predicate compares two values, {text[:_SHOWN]!r}; put a column in place of one")

    def contained(self, column: Column, literals: Sequence[Value]) -> Node:
        read, views = column.reader(), literal_views([literal.value for literal in literals])

        def test(row: Row) -> bool:
            return any(view is not None and view in given for view, given in views(read(row)))

        return column.node(f"{column.text} in {_listed(literals)}", test)

    def not_contained(self, column: Column, literals: Sequence[Value]) -> Node:
        read, views = column.reader(), literal_views([literal.value for literal in literals])

        def test(row: Row) -> bool:
            return not any(
                given and (view is None or None in given or view in given) for view, given in views(read(row))
            )

        return column.node(f"{column.text} not in {_listed(literals)}", test)

    def like(self, column: Column, pattern: Token) -> Node:
        return self._like(column, "like", pattern, True)

    def not_like(self, column: Column, pattern: Token) -> Node:
        return self._like(column, "not like", pattern, False)

    def _like(self, column: Column, words: str, pattern: Token, wanted: bool) -> Node:
        read, literal = column.reader(), Value(_unquoted(pattern))
        fits = like_matcher(_unquoted(pattern))

        def test(row: Row) -> bool:
            return (text := text_of(read(row))) is not None and fits(text) is wanted

        return column.node(f"{column.text} {words} {literal.text}", test)

    def null(self, column: Column) -> Node:
        read = column.reader()
        return column.node(f"{column.text} is null", lambda row: text_of(read(row)) is None)

    def not_null(self, column: Column) -> Node:
        read = column.reader()
        return column.node(f"{column.text} is not null", lambda row: text_of(read(row)) is not None)

    def literals(self, *literals: Value) -> tuple[Value, ...]:
        return literals

    def number(self, token: Token) -> Value:
        try:
            return Value(Decimal(token))
        except InvalidOperation as error:
            raise PredicateError(f"the predicate has a number that is too large, {token[:_SHOWN]}") from error

    def text(self, token: Token) -> Value:
        return Value(_unquoted(token))

    def true(self, _: Token) -> Value:
        return Value(True)

    def false(self, _: Token) -> Value:
        return Value(False)

    def column(self, *path: str) -> Column:
        return Column(path)

    def plain_name(self, token: Token) -> str:
        return str(token)

    def quoted_name(self, token: Token) -> str:
        return _unquoted(token)


def _joined(nodes: Sequence[Node], word: str, rank: int, test: Test) -> Node:
    columns = frozenset[str]().union(*(node.columns for node in nodes))
    text = word.join(node.within(rank) for node in nodes)
    return Node(text, columns, test, rank, max(node.nesting for node in nodes))


def _listed(literals: Sequence[Value]) -> str:
    return f"({', '.join(literal.text for literal in literals)})"


def _unquoted(token: str) -> str:
    quote = token[0]
    return token[1:-1].replace(quote * 2, quote)


def _quoted(text: str, quote: str) -> str:
    return f"{quote}{text.replace(quote, quote * 2)}{quote}"


def _literal_test(read: Callable[[Row], Any], compare: Callable[[Any, Any], bool], literal: Literal) -> Test:
    pair_of = literal_pair(literal)
    return lambda row: (pair := pair_of(read(row))) is not None and compare(*pair)


def _columns_test(left: Callable[[Row], Any], compare: Callable[[Any, Any], bool], right: Callable[[Row], Any]) -> Test:
    return lambda row: (pair := column_pair(left(row), right(row))) is not None and compare(*pair)

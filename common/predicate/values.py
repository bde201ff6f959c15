"""Values of rows, and how two of them compare: the types and the null of predicates.

Tested in tests/common/predicate/test_predicate.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from datetime import date, time
from decimal import Decimal, InvalidOperation
from typing import Any

Literal = str | bool | Decimal
Pair = tuple[Any, Any] | None
"""Two values that can be compared; None if one of them is null."""

Views = tuple[tuple[Any, set[Any]], ...]

_NUMBER = re.compile(r"\s*+[+-]?(\d++(\.\d*+)?|\.\d++)([eE][+-]?\d++)?\s*+", re.ASCII)
_TRUTHS = {"true": True, "false": False}
_NUMBERS = (int, float, Decimal)


def _number(value: Any) -> int | Decimal | None:
    """Return the number that a value is or can be read as, exactly; None if there is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else Decimal(float.__repr__(value))
    if isinstance(value, Decimal):
        return None if value.is_nan() else value
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        try:
            return Decimal(value)
        except InvalidOperation:  # its exponent has more than 18 digits
            return None
    return None


def _truth(value: Any) -> bool | None:
    return _TRUTHS.get(value.lower()) if isinstance(value, str) else value if isinstance(value, bool) else None


def text_of(value: Any) -> str | None:
    """Return the text that a value is or is written as; None for null."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return None if math.isnan(value) else float.__repr__(value)
    if isinstance(value, Decimal):
        return None if value.is_nan() else str(value)
    return str(value) if isinstance(value, (int, date, time)) else None


def _both(left: Any, right: Any) -> Pair:
    return None if left is None or right is None else (left, right)


def literal_pair(literal: Literal) -> Callable[[Any], Pair]:
    """Return a function of a value that returns it and the literal, both read in the way in which they compare."""
    if isinstance(literal, bool):
        return lambda value: _both(_truth(value), literal)
    if isinstance(literal, Decimal):
        return lambda value: _both(_number(value), literal)
    truth, number = _truth(literal), _number(literal)

    def pair(value: Any) -> Pair:
        if isinstance(value, bool):
            return _both(value, truth)
        if isinstance(value, _NUMBERS):
            return _both(_number(value), number)
        return _both(text_of(value), literal)

    return pair


def column_pair(left: Any, right: Any) -> Pair:
    """Return the values of two columns, both read in the way in which they compare."""
    numbers = _number(left), _number(right)
    if None not in numbers:
        return numbers
    if (truths := _both(_truth(left), _truth(right))) is not None:
        return truths
    texts = _both(text_of(left), text_of(right))
    return None if texts and numbers != (None, None) and not all(map(str.strip, texts)) else texts


def literal_views(literals: Iterable[Literal]) -> Callable[[Any], Views]:
    """Return a function of a value that returns, for each kind of literal, the value as it compares with that kind
    (None for null), and the literals of the kind as they compare with the value.
    """
    texts = {literal for literal in literals if isinstance(literal, str)}
    truths = {literal for literal in literals if isinstance(literal, bool)}
    numbers = {literal for literal in literals if isinstance(literal, Decimal)}
    texts_as_numbers, texts_as_truths = set(map(_number, texts)), set(map(_truth, texts))

    def views(value: Any) -> Views:
        if isinstance(value, bool):
            return (value, texts_as_truths), (None, numbers), (value, truths)
        if isinstance(value, _NUMBERS):
            return (number := _number(value), texts_as_numbers), (number, numbers), (None, truths)
        return (text_of(value), texts), (_number(value), numbers), (_truth(value), truths)

    return views


def like_matcher(pattern: str) -> Callable[[str], bool]:
    """Return whether a whole text fits a pattern. Each part between two % is looked for only once (`(?>…)`), so that
    the time is bounded by the product of both lengths.
    """
    first, *others = (
        "".join("." if letter == "_" else re.escape(letter) for letter in part) for part in pattern.split("%")
    )
    inner, last = (others[:-1], f".*{others[-1]}") if others else ([], "")
    fits = re.compile(first + "".join(f"(?>.*?{part})" for part in inner) + last, re.DOTALL).fullmatch
    return lambda text: fits(text) is not None

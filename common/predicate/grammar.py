"""The grammar of predicates, and the messages for texts that it does not have.

Tested in tests/common/predicate/test_predicate.py.
"""

from __future__ import annotations

import re
from functools import cache

from lark import Lark, UnexpectedInput, UnexpectedToken

from nextscene.common.predicate.builder import KEYWORDS, Builder, Node, PredicateError

MAX_CHARACTERS = 4096

_GRAMMAR = r"""
?start: disjunction
?disjunction: conjunction (_OR conjunction)*
?conjunction: unary (_AND unary)*
?unary: _NOT unary -> negation
    | "(" disjunction ")" -> group
    | operand COMPARISON operand -> comparison
    | column _IN literals -> contained
    | column _NOT _IN literals -> not_contained
    | column _LIKE TEXT -> like
    | column _NOT _LIKE TEXT -> not_like
    | column _IS _NULL -> null
    | column _IS _NOT _NULL -> not_null
?operand: column | literal
literals: "(" literal ("," literal)* ")"
literal: NUMBER -> number
    | TEXT -> text
    | TRUE -> true
    | FALSE -> false
column: name ("." name)*
name: NAME -> plain_name
    | QUOTED -> quoted_name
COMPARISON: /==|!=|<=|>=|=|<|>/
NUMBER: /[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?/i
TEXT: /'(?:[^']|'')*'|"(?:[^"]|"")*"/
QUOTED: /`(?:[^`]|``)+`/
NAME: /(?!(?:KEYWORDS)\b)[^\W\d]\w*/i
%ignore /\s+/
"""
_WORDS = {word if word in ("TRUE", "FALSE") else f"_{word}": word for word in KEYWORDS}
_EXPECTED = {
    "NAME": "a column",
    "NUMBER": "a number",
    "TEXT": "a text in quotes",
    "COMPARISON": "a comparison such as >=",
    **_WORDS,
    "LPAR": "(",
    "RPAR": ")",
    "COMMA": "a comma",
    "DOT": "a dot",
    "$END": "its end",
}
"""The terminals of the grammar in words, in the order of messages."""
_SHOWN = 40


def parse(text: str) -> Node:
    """Return the predicate that a text says. Raise PredicateError."""
    _refuse_long(text)
    try:
        node: Node = _parser().parse(text)  # type: ignore[assignment]  # it is what Builder makes
    except UnexpectedInput as error:
        is_at_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
        raise PredicateError(_message(text, len(text) if is_at_end else error.pos_in_stream or 0)) from error
    _refuse_long(node.text)  # it has blanks that the given text may lack
    return node


def _refuse_long(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise PredicateError(
            f"the predicate {text[:_SHOWN]!r}… has {len(text):,} characters, {MAX_CHARACTERS:,} are the most; select in"
            " several steps"
        )


@cache
def _parser() -> Lark:
    grammar = _GRAMMAR.replace("KEYWORDS", "|".join(KEYWORDS))
    keywords = "\n".join(rf"{terminal}: /{word}\b/i" for terminal, word in _WORDS.items())
    return Lark(grammar + keywords, parser="lalr", transformer=Builder())


def _message(text: str, at: int) -> str:
    state = _parser().parse_interactive(text[:at])
    state.exhaust_lexer()
    accepted = state.accepts()  # type: ignore[no-untyped-call]
    *first, last = [words for terminal, words in _EXPECTED.items() if terminal in accepted]
    expected = f"{', '.join(first)} or {last}" if first else last
    place = f"after {text[max(0, at - _SHOWN) : at]!r}" if text[:at].strip() else "at its beginning"
    found = f"{text[at : at + _SHOWN]!r}" if at < len(text) else "nothing more"
    return f"the predicate, at character {at + 1}, {place}: expected {expected}, found {found}; {_remedy(text[at:])}"


def _remedy(rest: str) -> str:
    if rest.startswith(("'", '"', "`")):
        return f"close the quotation mark {rest[0]}, and write one inside the quotes twice"
    if re.match(r"null\b", rest, re.IGNORECASE):
        return "write IS NULL or IS NOT NULL after a column"
    return "write texts in quotes, and names of columns that are not plain words in backquotes"

"""Predicates over the rows of a table, such as `width >= 480 and license in ('CC0', 'CC-BY')`.

    predicate   predicate OR predicate | predicate AND predicate | NOT predicate | ( predicate ) | test
    test        operand (= | == | != | < | <= | > | >=) operand         one of the two is a column
                column [NOT] IN ( literal, … )
                column [NOT] LIKE text                                  %: any characters, _: any one
                column IS [NOT] NULL
    operand     column | literal
    literal     number | 'text' | "text" | TRUE | FALSE                 a doubled quote stands for one
    column      name{.name}                                             a dot leads into an object
    name        letters, digits, _ | `any other name`                   a doubled backquote stands for one

NOT binds closest, then AND, then OR. Keywords have any case; LIKE distinguishes upper and lower case.

**Null** is what has no value to compare: a missing column, None, NaN, a list, an object. There are two truth values:
every test of null is false, also != and NOT IN, and NOT of it is true; IS NULL asks for it. An empty text is a text.

**Types**, so that a cell of a CSV, which is always a text, means the same as a value of JSON:

- Numbers are compared exactly; a binary fraction counts as the shortest decimal that is read as it. Against a number,
  a text that is a number counts as one; any other text, the empty one too, is null.
- Against a quoted text, a text is compared as a text, by code points. LIKE reads numbers as texts too.
- Against TRUE or FALSE, the texts `true` and `false` in any case count as truth values. FALSE is less than TRUE.
- Two columns are compared as numbers if both can be read as such, else as truth values likewise, else as texts. A
  number against an empty text is null.
- Dates and times are texts, such as `2024-05-01 12:30:00`.
- IN is = for one literal of the list; NOT IN is != for each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nextscene.common.predicate.builder import PredicateError, Test
from nextscene.common.predicate.grammar import parse

__all__ = ["Predicate", "PredicateError"]


@dataclass(frozen=True)
class Predicate:
    """A predicate over rows: `matches` returns whether it is true for a row.

    `columns` are the columns that it reads, of a path its first name. `text` has one form, whatever the blanks, quotes
    and case of keywords that the predicate was written with, and parses to the same predicate.
    """

    text: str
    columns: frozenset[str]
    matches: Test = field(repr=False, compare=False)

    @staticmethod
    def parse(text: str) -> Predicate:
        """Return the predicate that a text says. Raise PredicateError."""
        node = parse(text)
        return Predicate(node.text, node.columns, node.test)

    def __str__(self) -> str:
        return self.text

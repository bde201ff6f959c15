"""Predicates select the rows that SQLite selects, follow the rules of their module, and refuse hostile texts."""

from __future__ import annotations

import math
import sqlite3
import time
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.common.predicate import Predicate, PredicateError


def holds(text: str, **row: Any) -> bool:
    predicate = Predicate.parse(text)
    answer = predicate.matches(row)
    again = Predicate.parse(str(predicate))
    assert again == predicate and again.matches(row) is answer
    return answer


def mistake(text: str) -> str:
    with pytest.raises(PredicateError) as error:
        Predicate.parse(text)
    said = str(error.value)
    assert said.isprintable() and len(said) < 400
    return said


# ---- SQLite ----------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(st.integers(-3, 3), st.sampled_from([0.1, -2.5, 1e20, 0.30000000000000004]))
WORDS = st.text("aBé%_'\"\n😀", max_size=4)
COMPARISON = st.sampled_from(["=", "==", "!=", "<", "<=", ">", ">="])
NAMES = ("n", "m", "t", "an `odd` name", "flag")
ROWS = st.lists(
    st.fixed_dictionaries(
        {name: st.none() | NUMBERS for name in ("n", "m")}
        | {name: st.none() | WORDS for name in ("t", "an `odd` name")}
        | {"flag": st.none() | st.booleans()}
    ),
    min_size=1,
    max_size=8,
)


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


COLUMN = {"number": st.sampled_from("nm"), "text": st.sampled_from(["t", "`an ``odd`` name`"])}
LITERAL = {"number": NUMBERS.map(str), "text": WORDS.map(quoted)}
TESTS = st.one_of(
    *(
        st.one_of(
            st.builds("{} {} {}".format, column, COMPARISON, literal | column),
            st.builds("{} {} {}".format, literal, COMPARISON, column),
            st.builds(
                "{} {}in ({})".format,
                column,
                st.sampled_from(["", "not "]),
                st.lists(literal, min_size=1, max_size=3).map(", ".join),
            ),
            st.builds("{} is {}null".format, column, st.sampled_from(["", "NOT "])),
        )
        for column, literal in ((COLUMN[kind], LITERAL[kind]) for kind in COLUMN)
    ),
    st.builds("{} {}like {}".format, COLUMN["text"], st.sampled_from(["", "not "]), LITERAL["text"]),
    st.builds("flag {} {}".format, COMPARISON, st.sampled_from(["true", "FALSE"])),
)
"""Tests that mean the same in SQL, where what is null stays null."""

Both = tuple[str, str]
"""A predicate, and the same in SQL with two truth values."""

PREDICATES: st.SearchStrategy[Both] = st.recursive(
    TESTS.map(lambda test: (test, f"coalesce({test}, 0)")),
    lambda inner: st.one_of(
        st.builds(lambda one: (f"not {one[0]}", f"not {one[1]}"), inner),
        st.builds(lambda one: (f"({one[0]})", f"({one[1]})"), inner),
        st.builds(
            lambda left, word, right: (f"{left[0]} {word} {right[0]}", f"{left[1]} {word} {right[1]}"),
            inner,
            st.sampled_from(["and", "OR"]),
            inner,
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=300)
@given(PREDICATES, ROWS)
def test_sqlite_selects_the_same_rows(predicate: Both, rows: list[dict[str, Any]]) -> None:
    ours, sql = predicate
    database = sqlite3.connect(":memory:")
    database.execute("pragma case_sensitive_like = on")
    database.execute("create table rows (n, m, t, `an ``odd`` name`, flag)")
    database.executemany("insert into rows values (?, ?, ?, ?, ?)", [[row[name] for name in NAMES] for row in rows])
    expected = [bool(found) for (found,) in database.execute(f"select {sql} from rows order by rowid")]
    database.close()
    parsed = Predicate.parse(ours)
    assert [parsed.matches(row) for row in rows] == expected
    again = Predicate.parse(str(parsed))
    assert again == parsed and [again.matches(row) for row in rows] == expected


@settings(max_examples=100)
@given(st.builds("n {} {}".format, COMPARISON, LITERAL["number"] | st.just("m")), ROWS)
def test_cells_of_a_csv_select_the_same_rows_as_numbers(text: str, rows: list[dict[str, Any]]) -> None:
    predicate = Predicate.parse(text)
    for row in rows:
        if row["n"] is not None or row["m"] is not None:
            cells = {name: "" if value is None else f" {value}" for name, value in row.items()}
            assert predicate.matches(cells) == predicate.matches(row)


# ---- the rules -------------------------------------------------------------------------------------------------


def test_numbers_of_all_types_are_compared_exactly() -> None:
    tenths = (0.1, Decimal("0.1"), "0.1", "1e-1", " +.10 ")
    assert all(
        holds("a = 0.1 and a in (5, 0.1) and not a < 0.1 and a = b", a=one, b=two) for one in tenths for two in tenths
    )
    big = 2**53 + 1
    assert holds(f"a = {big} and a != {big - 1} and a > {big - 1}", a=big)
    assert holds(f"a = {big}", a=str(big)) and not holds(f"a = {big}", a=float(big))
    assert holds("a = 1e23 and a = b", a=1e23, b="100000000000000000000000")
    assert holds("a < 1e400 and a > -1e400", a=1.7e308) and holds("a > 1e400", a=math.inf)
    assert holds("a >= 5", a="1e999999999999999999") and not holds("a >= 5", a="1e9999999999999999999")


@pytest.mark.parametrize("null", [None, math.nan, Decimal("nan"), Decimal("snan"), [1], {"a": 1}, b"5"])
def test_null_fails_every_test_and_not_makes_that_true(null: Any) -> None:
    tests = [
        "a = 5",
        "a != 5",
        "a != 'x'",
        "a != true",
        "a in (5, 'x')",
        "a not in (5)",
        "a like '%'",
        "a not like 'x'",
    ]
    tests += ["a = a", "a != b", "b <= a", "a is not null"]
    for row in ({"a": null, "b": 5}, {"b": 5}):
        assert not any(holds(test, **row) for test in tests)
        assert all(holds(f"not {test}", **row) for test in tests)
        assert holds("a is null", **row)


@pytest.mark.parametrize("text", ["", " ", "x", "1_000", "nan", "inf", "0x10", "1,5", "٣", "5 6", "true"])
def test_a_text_that_is_not_a_number_is_null_against_one(text: str) -> None:
    assert not any(holds(f"a {sign} 5", a=text) for sign in ("=", "!=", "<", ">="))
    assert not holds("a in (5)", a=text) and not holds("a not in (5)", a=text) and not holds("a is null", a=text)


def test_against_a_quoted_text_a_text_is_a_text() -> None:
    assert holds("a < '9'", a="10") and holds("a != '5.0'", a="5") and holds("a = ''", a="")
    assert holds("a < '9.5'", a=9) and holds("a = '5.0'", a=5) and not holds("a != 'x'", a=5)
    assert holds("a = 'TRUE'", a=True) and not holds("a = 'TRUE'", a="true")
    assert holds("a > 'Z' and a > '\uffff'", a="😀") and holds('a = "x\'""y"', a="x'\"y")


def test_truth_values_are_also_read_from_texts() -> None:
    for true in (True, "true", "True", "TRUE"):
        assert holds("a = true and a != false and a > FALSE and a in (true) and a not in (false)", a=true)
    for other in (1, "1", "yes", "", 0.0):
        assert not holds("a = true or a != true or a in (true) or a not in (true)", a=other)
    assert not holds("a = 1 or a != 1", a=True)


def test_two_columns_are_numbers_if_both_can_be_read_as_such() -> None:
    assert holds("a > b", a="10", b="9") and holds("a > b", a=10, b="9.5")
    assert holds("a < b", a="10", b="9 x") and holds("a < b", a=10, b="x") and holds("a = b", a="x", b="x")
    assert holds("a = b", a="TRUE", b=True) and holds("a = b", a=True, b="true") and holds("a != b", a="x", b=True)
    assert not any(holds(f"a {sign} b or b {sign} a", a="", b=5) for sign in ("<", "!=", ">"))
    assert holds("a = b", a="", b="")


def test_dates_and_times_are_texts() -> None:
    row = {"a": datetime(2024, 5, 1, 12, 30), "b": date(2024, 5, 1)}
    assert holds(
        "a > '2024-04-30' and a < '2024-05-01 13' and b = '2024-05-01' and b in ('2024-05-01') and b < a", **row
    )


def test_like_matches_whole_texts_in_their_case() -> None:
    assert holds("a like 'a%_'", a="ab\n") and not holds("a like 'a%_'", a="a") and not holds("a like 'A%'", a="ab")
    assert holds("a like '%.mp4' and a not like '%xmp4' and a like '%'", a="[b].mp4")
    assert holds("a like '12%'", a=123) and holds("a like '%.5'", a=0.5) and holds("a like 't%'", a=True)


def test_like_takes_no_long_time_for_a_pattern_of_many_parts() -> None:
    before = time.process_time()
    assert not holds(f"a like '{'%a' * 200}%b'", a="a" * 100_000)
    assert time.process_time() - before < 2


def test_a_long_text_of_digits_is_read_in_a_short_time() -> None:
    before = time.process_time()
    assert not holds("a < 5", a="1" * 1_000_000 + "x") and holds("a > 5", a="1" * 1_000_000)
    assert time.process_time() - before < 2


def test_a_dot_leads_into_an_object_and_backquotes_name_any_column() -> None:
    row: dict[str, Any] = {"metadata": {"fps": 30, "über uns": {"in": 1}}, "metadata.fps": 25, "größe_2": 1, "and": 2}
    assert holds("metadata.fps = 30 and `metadata.fps` = 25 and metadata . `über uns`.`in` = 1", **row)
    assert holds("größe_2 = 1 and `and` = 2 and metadata.fps.x is null and nothing.at is null", **row)
    predicate = Predicate.parse("metadata.fps = `metadata.fps` or x in (1) and not y like 'z'")
    assert predicate.columns == {"metadata", "metadata.fps", "x", "y"}


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (' a==5 AND\tb  ="it\'s" ', "a = 5 and b = 'it''s'"),
        ("((a = 1) or ((b = 2)))", "a = 1 or b = 2"),
        ("(a = 1 or b = 2) AND NOT (c = 3 and d=4)", "(a = 1 or b = 2) and not (c = 3 and d = 4)"),
        ("not not a = 1", "not not a = 1"),
        ("`plain` in (1,'2',TRUE, -.5)", "plain in (1, '2', true, -0.5)"),
        ("`is`.`a``b` Is Not Null", "`is`.`a``b` is not null"),
    ],
)
def test_a_predicate_has_one_text(text: str, canonical: str) -> None:
    assert str(Predicate.parse(text)) == canonical


# ---- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("at its beginning", "a column")),
        ("a", ("character 2", "a comparison such as >=", "nothing more")),
        ("a >= ", ("character 6", "a number", "a text in quotes")),
        ("a = null", ("'null'", "IS NULL")),
        ("a = 'x", ("character 5", "close the quotation mark")),
        ("a b = 1", ("after 'a '", "found 'b = 1'", "backquotes")),
        ("a-b = 1", ("found '-b = 1'", "backquotes")),
        ("a = 1 = 2", ("AND, OR or its end",)),
        ("a >= and b = 1", ("character 6", "found 'and b = 1'")),
        ("a in ()", ("a number",)),
        ("a in (b)", ("found 'b)'",)),
        ("a like b", ("a text in quotes",)),
        ("1 = 1", ("compares two values", "column")),
        ("(a = 1", ("character 7", "AND, OR or )")),
        ("a = 1)", ("found ')'",)),
        ("a = 1; drop table rows", ("found '; drop table rows'",)),
        ("a = __import__('os')", ("found \"('os')\"",)),
        ("a = \x1b[2J\ud800", (r"found '\x1b[2J\ud800'",)),
        ("a = 1e9999999999999999999", ("too large",)),
        ("``= 1", ("close the quotation mark `",)),
    ],
)
def test_a_text_that_cannot_be_read_is_shown_with_place_and_remedy(text: str, words: tuple[str, ...]) -> None:
    said = mistake(text)
    assert all(word in said for word in words), said


def test_length_and_nesting_are_bounded() -> None:
    assert "4,097 characters" in mistake("a = 1" + " " * 4092)
    assert holds("a = 1 and " * 400 + "a = 1", a=1)
    assert "4,100 characters" in mistake("a=1 or " * 455 + "a=1")
    for before, after in (("(", ")"), ("not ", "")):
        assert holds(f"{before * 50}a = 1{after * 50}", a=1)
        assert "deeper than 50 levels" in mistake(f"{before * 51}a = 1{after * 51}")
    assert "deeper than 50 levels" in mistake("not (" * 600 + "a = 1" + ")" * 600)
    assert "nothing more" in mistake("(" * 4096) and "nothing more" in mistake("not " * 1024)


PIECES = "a b.c ` ' \" ( ) and or not in is null like , 1 -2.5 true = != < é".split()


@settings(max_examples=200)
@given(st.text(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join))
def test_any_text_is_a_predicate_or_one_clear_message(text: str) -> None:
    try:
        predicate = Predicate.parse(text)
    except PredicateError as error:
        assert str(error).isprintable()
    else:
        assert Predicate.parse(str(predicate)) == predicate
        assert predicate.matches({}) in (True, False)

"""The verdict out of whatever a judge wrote: taken where it is plain, never guessed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.judge.verdict_parser import SCHEMA, parse_verdict

WORDS = {"Pass": ["Pass", "PASS", "pass", "pASS"], "Fail": ["Fail", "FAIL", "fail", "fAIL"]}
prose = st.text().filter(lambda text: not any(word in text.casefold() for word in ("pass", "fail", "{")))
verdicts = st.sampled_from(sorted(WORDS))


def test_the_schema_asks_for_the_reason_first_and_for_nothing_else() -> None:
    assert list(SCHEMA["properties"]) == SCHEMA["required"] == ["reason", "verdict"]
    assert SCHEMA["properties"]["verdict"]["enum"] == ["Pass", "Fail"]
    assert SCHEMA["additionalProperties"] is False


@given(verdicts, st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_an_answer_in_the_requested_form_gives_verdict_and_stripped_reason(verdict: str, reason: str) -> None:
    for ascii_only in (True, False):
        text = json.dumps({"reason": reason, "verdict": verdict}, ensure_ascii=ascii_only)
        assert parse_verdict(text) == (verdict, reason.strip())


@given(verdicts, st.data(), prose, prose)
def test_json_is_found_in_any_case_in_a_fence_and_between_prose(
    verdict: str, drawn: st.DataObject, before: str, after: str
) -> None:
    word = drawn.draw(st.sampled_from([*WORDS[verdict], f"``{verdict}``", f" {verdict}. ", f"'{verdict}'"]))
    value = json.dumps({"verdict": word, "reason": "A {new} moment."}, indent=drawn.draw(st.sampled_from([None, 2])))
    assert parse_verdict(f"{before}\n```json\n{value}\n```\n{after}") == (verdict, "A {new} moment.")


@pytest.mark.parametrize("verdict", WORDS)
@pytest.mark.parametrize(
    "form",
    [
        "{}",
        " {}\n",
        "``{}``",
        "**{}**",
        "{}.",
        "`{}`!",
        "Verdict: {}",
        "verdict:{}",
        "VERDICT - {}",
        "**Verdict:** {}",
        "The caption shows a later moment.\nVerdict: ``{}``",
        "Label: ``{}``",
        "Verdict: [{}]",
        'verdict": "{}"',
        '{{"result": {{"verdict": "{}"}}}}',
        '[{{"verdict": "{}"}}]',
        "Verdict: {}. Final verdict: {}",
        '{{"reason": "cut off {{", "verdict": "{}"',
        '{{not JSON}} {{"verdict": "{}"}}',
    ],
)
def test_a_verdict_in_plain_words_is_read_in_any_case(form: str, verdict: str) -> None:
    for word in WORDS[verdict]:
        found = parse_verdict(form.format(word, word))
        assert found is not None and found[0] == verdict


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{}",
        "null",
        "Let me begin by comparing the two texts. The first one",
        "Pass or Fail",
        "Verdict: Pass / Fail",
        "Verdict: pass or fail?",
        "Verdict: ``Fail`` | ``Pass``",
        "Verdict: Pass. Verdict: Fail.",
        "Verdict: Pass\nLabel: fail",
        '{"verdict": "Pass"} {"verdict": "Fail"}',
        '{"verdict": "maybe"}',
        '{"verdict": null}',
        "The caption does not pass as a new moment.",
        "Verdict: passable",
        "Verdict: failure",
        "Verdict: it is hard to say whether it should pass",
        "the verdict",
        "Verdict: faıl",
        "Verdict: faİl",
        "paſſ",
        '{"verdict": "paß"}',
        "{" * 5000,
        '{"a":' * 5000,
        "[" * 100_000,
        '{"verdict": ' + "9" * 5000 + "}",
    ],
)
def test_no_verdict_two_verdicts_and_other_words_are_none(text: str) -> None:
    assert parse_verdict(text) is None


@pytest.mark.parametrize(
    "text", ["{\n" * 300_000, '{"a":' * 200_000, "[{" * 300_000, "verdict: pass" + "/" * 500_000, "{" + '"' * 900_000]
)
def test_a_text_that_is_made_to_keep_a_reader_busy_for_hours_is_none_at_once(text: str) -> None:
    assert parse_verdict(text) in (None, ("Pass", ""))


def test_an_unstorable_or_overlong_reason_is_escaped_and_truncated() -> None:
    assert parse_verdict('{"verdict": "Pass", "reason": "\\ud83d \\u0000 \\u001b[31m"}') == (
        "Pass",
        "\\ud83d \\x00 \\x1b[31m",
    )
    for reason in (
        '"' + "x" * 100_000 + '"',
        "[" * 400 + "]" * 400,
        "{" + ", ".join(f'"{i}": {i}' for i in range(9999)) + "}",
    ):
        found = parse_verdict(f'{{"verdict": "Fail", "reason": {reason}}}')
        assert found is not None and found[0] == "Fail" and len(found[1]) <= 4096


def test_a_verdict_that_comes_after_the_repeated_choice_is_read() -> None:
    assert parse_verdict("Output:\nVerdict: Pass / Fail\nVerdict: Fail") == ("Fail", "")


def test_what_the_reason_says_of_verdicts_does_not_count() -> None:
    text = json.dumps({"reason": 'I would not say "Verdict: Fail" {"verdict": "Fail"}.', "verdict": "Pass"})
    assert parse_verdict(text) == ("Pass", 'I would not say "Verdict: Fail" {"verdict": "Fail"}.')


def test_a_missing_reason_is_empty_and_one_of_another_type_is_serialized() -> None:
    assert parse_verdict('{"verdict": "Fail"}') == ("Fail", "")
    assert parse_verdict('{"verdict": "Fail", "reason": 3}') == ("Fail", "3")


scraps = st.lists(
    st.one_of(
        st.text(max_size=5),
        st.sampled_from(
            ["pass", "FAIL", "Pass", "verdict", "label", ":", '"', "{", "}", "[", "``", " ", "\n", '{"verdict": "']
        ),
    ),
    max_size=12,
).map("".join)


@given(st.one_of(scraps, st.text()))
def test_it_never_raises_and_says_no_word_that_is_not_there(text: str) -> None:
    found = parse_verdict(text)
    assert found is None or found[0].lower() in text.lower()


@given(prose)
def test_without_either_word_there_is_no_verdict(text: str) -> None:
    assert parse_verdict(text) is None
    assert parse_verdict(f"Verdict: {text}") is None

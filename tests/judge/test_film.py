"""The embedded judge: a rule on words, without a model."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nextscene.judge.base import NoVerdict, Question, Verdict
from nextscene.judge.film import FilmJudge, content_words, overlap

# Words that the rule takes as they are: no function word, no plural ending.
WORDS = [f"{first}{second}o" for first in "bcdfgklmnprtvz" for second in ("a", "e", "ui")]
sentences = st.lists(st.sampled_from([*WORDS, "the", "and", "of", "it's", "Dogs", "dog's", "42", "–"])).map(" ".join)


def verify(scene: str, caption: str, max_overlap: float = 0.5) -> Verdict:
    return asyncio.run(FilmJudge(max_overlap).verify(Question("id", caption), scene))


@given(st.one_of(sentences, st.text()), st.one_of(sentences, st.text()))
def test_the_overlap_is_symmetric_lies_in_0_to_1_and_names_words_of_both(one: str, other: str) -> None:
    share, common = overlap(one, other)
    assert 0 <= share <= 1
    assert (share, common) == overlap(other, one)
    assert common <= content_words(one) & content_words(other)
    assert (share > 0) is bool(common)


@given(sentences)
def test_a_text_overlaps_wholly_with_itself_whatever_the_order_and_case(text: str) -> None:
    assume(content_words(text))
    assert overlap(text, " ".join(reversed(text.upper().split())))[0] == 1


@given(st.sets(st.sampled_from(WORDS)), st.sets(st.sampled_from(WORDS)), st.sets(st.sampled_from(WORDS)))
def test_the_share_is_that_of_the_common_words_in_the_shorter_text(a: set[str], b: set[str], both: set[str]) -> None:
    a, b = a - b - both, b - a - both
    share, common = overlap(" ".join(a | both), " ".join(b | both))
    assert common == both
    shorter = min(len(a), len(b)) + len(both)
    assert share == pytest.approx(len(both) / shorter if shorter else 0)


def test_a_text_without_content_words_overlaps_with_nothing() -> None:
    assert overlap("the of and, it is 42", "the of and, it is 42") == (0, set())
    assert overlap("", "a rabbit") == (0, set())


def test_function_words_case_possessives_and_plurals_do_not_count() -> None:
    assert content_words("The rabbit’s ears; two RABBITS and a glass") == {"rabbit", "ear", "glass"}


@pytest.mark.parametrize(
    ("max_overlap", "verdict"),
    [(0.0, "Fail"), (0.25, "Fail"), (0.4999, "Fail"), (0.5, "Fail"), (0.5001, "Pass"), (1.0, "Pass")],
)
def test_a_caption_passes_below_the_threshold_and_fails_at_it(max_overlap: float, verdict: str) -> None:
    opinion = verify("bato beto", "bato luino", max_overlap)
    assert opinion.verdict == verdict
    assert "0.50" in opinion.reason and "bato" in opinion.reason


def test_the_same_moment_never_passes() -> None:
    assert verify("a rabbit sleeps", "a rabbit sleeps", 1.0).verdict == "Fail"


def test_the_scene_is_the_preceding_caption_word_for_word() -> None:
    question = Question("id", "the rabbit wakes", "A butterfly  lands –\nsoftly.")
    assert asyncio.run(FilmJudge(0.5).describe(question, ())).text == "A butterfly  lands –\nsoftly."


def test_the_first_shot_of_a_film_is_declined_as_a_rejection() -> None:
    with pytest.raises(NoVerdict) as declined:
        asyncio.run(FilmJudge(0.5).describe(Question("id", "the rabbit wakes", ""), ()))
    assert (declined.value.outcome, declined.value.reason) == ("rejected", "first_shot")


def test_all_that_it_makes_says_film_and_names_no_prompt() -> None:
    judge = FilmJudge(0.5)
    assert (judge.name, judge.rounds, judge.prompt_sha256) == ("film", 1, "")

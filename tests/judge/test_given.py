"""The judge of given scenes: it hands them on, verifies none, and says so."""

from __future__ import annotations

import asyncio

import pytest

from nextscene.curation.stages.describe import DescribedScene, describe_clips
from nextscene.judge.base import NoVerdict, Question, Verdict
from nextscene.judge.given import GIVEN, GivenJudge

SCENE = "A door creaks –\nthen  silence."


def described(caption: str, scene: str) -> DescribedScene:
    return asyncio.run(describe_clips(GivenJudge(), Question("id", caption, "the shot before", given_scene=scene)))


def test_the_scene_is_the_given_one_word_for_word_without_a_verdict() -> None:
    assert described("a man enters", SCENE) == DescribedScene("a man enters", SCENE)


def test_a_scene_like_the_caption_is_not_judged() -> None:
    assert described("a man enters", "a man enters").outcome is None


@pytest.mark.parametrize(
    ("caption", "scene", "reason"), [("x", "", "no_scene"), ("", "x", "no_caption"), ("", "", "no_caption")]
)
def test_a_clip_without_caption_or_scene_is_rejected(caption: str, scene: str, reason: str) -> None:
    ended = described(caption, scene)
    assert ended.outcome and (ended.outcome.outcome, ended.outcome.reason) == ("rejected", reason)
    assert (ended.text, ended.verdict, ended.rounds) == ("", "", 0)


def test_a_scene_taken_unverified_after_a_fail_has_no_verdict() -> None:
    class Unsure(GivenJudge):
        rounds = 3

        async def verify(self, question: Question, scene: str) -> Verdict | None:  # type: ignore[override]
            return Verdict("Fail", "no", "model") if next(left) else None

    left = iter([True, False])
    found = asyncio.run(describe_clips(Unsure(), Question("id", "a man enters", given_scene=SCENE)))
    assert (found.text, found.verdict, found.judge_model, found.outcome) == (SCENE, "", "", None)
    assert (found.rounds, [one.reason for one in found.turned_down]) == (1, ["no"])


def test_the_caption_before_never_stands_for_a_scene() -> None:
    with pytest.raises(NoVerdict):
        asyncio.run(GivenJudge().describe(Question("id", "x", "the shot before")))


def test_its_kind_claims_no_verification_and_costs_nothing() -> None:
    assert "no judge wrote or verified it" in GIVEN.method
    assert not (GIVEN.pays or GIVEN.is_language_model or GIVEN.can_caption or GIVEN.reads_preceding)
    assert GIVEN.reads_scenes and GIVEN.writes_scenes and not GIVEN.settings

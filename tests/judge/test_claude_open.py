"""`ClaudeJudge.open`: a judge for library users, against the loopback API."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from PIL import Image

from nextscene.common.fence import LOCK
from nextscene.judge import ClaudeJudge, JudgeText, Question, Verdict
from nextscene.judge.api.request import Frame
from nextscene.judge.errors import JudgeStopped, JudgeUsageError
from tests.fakes.claude_api import ClaudeApi
from tests.judge.api_support import account, interactive_cost, stored_lines

QUESTION = Question("clip-1", caption="A dog shakes water off its fur.")


async def describe_and_verify(folder: Path, question: Question = QUESTION) -> tuple[JudgeText, Verdict]:
    async with ClaudeJudge.open(folder, budget_usd="0.5") as judge:
        scene = await judge.describe(question)
        return scene, await judge.verify(question, scene.text)


def test_a_question_is_paid_for_once_and_stored_below_the_folder(tmp_path: Path, api: ClaudeApi) -> None:
    first = asyncio.run(describe_and_verify(tmp_path))
    assert first[0].text.startswith("Earlier, ") and first[1].verdict == "Pass"
    assert len(api.exchanges) == len(stored_lines(tmp_path)) == 2
    assert account(tmp_path).spent == interactive_cost(api) > 0
    again = asyncio.run(describe_and_verify(tmp_path))
    assert (again[0].text, again[1].verdict, len(api.exchanges)) == (first[0].text, first[1].verdict, 2)
    assert not (tmp_path / LOCK).exists()


def test_a_rejected_scene_leads_to_another_description(tmp_path: Path, api: ClaudeApi) -> None:
    async def run() -> tuple[str, str]:
        async with ClaudeJudge.open(str(tmp_path), model="claude-haiku-5-5") as judge:
            first = (await judge.describe(QUESTION)).text
            return first, (await judge.describe(QUESTION, (first,))).text

    first, second = asyncio.run(run())
    assert first != second
    assert {exchange.body["model"] for exchange in api.exchanges} == {"claude-haiku-5-5"}


def test_a_clip_without_a_caption_is_captioned_from_its_frames(tmp_path: Path, api: ClaudeApi) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG")
    question = replace(QUESTION, caption="", frames=(Frame(0.5, 64, 64, file.getvalue()),))

    async def run() -> JudgeText:
        async with ClaudeJudge.open(tmp_path) as judge:
            return await judge.caption(question)

    assert asyncio.run(run()).text.startswith("A clip with 1 frames")


def test_the_budget_bounds_all_blocks_together(tmp_path: Path, api: ClaudeApi) -> None:
    async def ask(number: int) -> None:
        async with ClaudeJudge.open(tmp_path, budget_usd=0.03) as judge:
            await judge.describe(replace(QUESTION, caption=f"A dog runs, take {number}."))

    with pytest.raises(JudgeStopped, match=r"the budget of \$0\.03 is used up: .* Raise `budget_usd`"):
        for number in range(200):
            asyncio.run(ask(number))
    assert 0 < interactive_cost(api) == account(tmp_path).spent <= Decimal("0.03")


def test_a_missing_key_is_an_error_before_anything_is_written(
    tmp_path: Path, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(JudgeUsageError, match="ANTHROPIC_API_KEY is not set"):
        asyncio.run(describe_and_verify(tmp_path / "answers"))
    assert not (tmp_path / "answers").exists()

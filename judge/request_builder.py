"""Requests to the model: templates, filled with the texts of a clip.

Tested in tests/judge/api/test_wire.py.
"""

from __future__ import annotations

from typing import Any

from nextscene.judge.api.request import Request, Task
from nextscene.judge.base import Question
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.prompt_escape import as_value
from nextscene.judge.spending.prices import Price
from nextscene.judge.verdict_parser import SCHEMA
from nextscene.prompts import Prompt, load

_DESCRIPTION = "[What likely happened just before this moment]"


class RequestBuilder:
    """A builder of the request of each task. `docs/reproduction.md` shows the texts.

    Version 2 of the prompts escapes text from data by `as_value`, and says in the system prompt that it is data.
    """

    def __init__(self, settings: ClaudeConfig, price: Price) -> None:
        self._settings = settings
        self._effort = settings.effort if price.takes_effort else ""

    def caption(self, question: Question) -> Request:
        """Return the request for a caption: the frames, each after its time, then our prompt."""
        prompt = load("caption")
        subject = f"{question.clip_id} {question.content}" if question.content else ""
        return self._request("caption", prompt, question, text=prompt.text, frames=question.frames, subject=subject)

    def describe(self, question: Question, rejected_scenes: tuple[str, ...]) -> Request:
        """Return the request for a scene: the template up to `Description:`; the rest of it is the system prompt."""
        prompt = load("preceding_description")
        instruction, _, guidelines = prompt.text.partition(_DESCRIPTION)
        text = instruction.strip().replace(prompt.markers["caption"], self.value(question.caption))
        if rejected_scenes:
            attempts = "\n".join(f"- {' '.join(self.value(scene).split())}" for scene in rejected_scenes)
            text = f"{text}\n\n{load('retry').fill(rejected_scenes=attempts)}"
        return self._request("describe", prompt, question, text=text, system=self._system(guidelines.strip()))

    def verify(self, question: Question, scene: str) -> Request:
        """Return the request to verify a scene: the template, then scene and caption, named as in template 10.1."""
        prompt = load("verification")
        text = f"{prompt.text}\nScene Description: {self.value(scene)}\nCaption: {self.value(question.caption)}"
        return self._request("verify", prompt, question, text=text, system=self._system(), schema=SCHEMA)

    def consistency(self, question: Question, scene: str) -> Request:
        """Return the request for a consistency verdict: the template with scene and caption filled in."""
        prompt = load("causal_consistency")
        text = prompt.fill(scene_description=self.value(scene), caption=self.value(question.caption))
        return self._request("consistency", prompt, question, text=text, system=self._system(), schema=SCHEMA)

    def value(self, text: str) -> str:
        """Return a text from data, escaped for a template."""
        return text if self._settings.prompt_version == 1 else as_value(text)

    def _system(self, *parts: str) -> str:
        notice = () if self._settings.prompt_version == 1 else (load("notice").text,)
        return "\n\n".join([*parts, *notice])

    def _request(self, task: Task, prompt: Prompt, question: Question, **parts: Any) -> Request:
        return Request(
            task=task,
            prompt=prompt.name,
            prompt_sha256=prompt.sha256,
            model=self._settings.model,
            effort=self._effort,
            max_tokens=self._settings.max_tokens,
            attempt=question.attempt,
            **{"system": "", **parts},
        )

"""The questions to the model: templates, and what is put into them."""

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
    """The wording of each question on the wire. `docs/reproduction.md` shows them.

    Version 2 of the prompts puts strangers' text in by `as_value`, and says in the system prompt that it is data.
    """

    def __init__(self, settings: ClaudeConfig, price: Price) -> None:
        self._settings = settings
        self._effort = settings.effort if price.takes_effort else ""

    def caption(self, question: Question) -> Request:
        """The frames, each after its time, then our caption prompt."""
        prompt = load("caption")
        subject = f"{question.clip_id} {question.content}" if question.content else ""
        return self._request("caption", prompt, question, text=prompt.text, frames=question.frames, subject=subject)

    def describe(self, question: Question, rejected_scenes: tuple[str, ...]) -> Request:
        """The template up to `Description:`, from where the model goes on; what follows there is the system prompt."""
        prompt = load("preceding_description")
        instruction, _, guidelines = prompt.text.partition(_DESCRIPTION)
        text = instruction.strip().replace(prompt.markers["caption"], self.value(question.caption))
        if rejected_scenes:
            attempts = "\n".join(f"- {' '.join(self.value(scene).split())}" for scene in rejected_scenes)
            text = f"{text}\n\n{load('retry').fill(rejected_scenes=attempts)}"
        return self._request("describe", prompt, question, text=text, system=self._system(guidelines.strip()))

    def verify(self, question: Question, scene: str) -> Request:
        """The template, then scene and caption, under the names that the paper's template 10.1 gives them."""
        prompt = load("verification")
        text = f"{prompt.text}\nScene Description: {self.value(scene)}\nCaption: {self.value(question.caption)}"
        return self._request("verify", prompt, question, text=text, system=self._system(), schema=SCHEMA)

    def consistency(self, question: Question, scene: str) -> Request:
        """The template, scene and caption in their places."""
        prompt = load("causal_consistency")
        text = prompt.fill(scene_description=self.value(scene), caption=self.value(question.caption))
        return self._request("consistency", prompt, question, text=text, system=self._system(), schema=SCHEMA)

    def value(self, text: str) -> str:
        """Return a stranger's text as it is put into a template."""
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

"""Estimates of the cost before anything is asked: calls, tokens and dollars, from explicit assumptions."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields, replace
from decimal import Decimal

from nextscene.judge.api.request import Frame, Request
from nextscene.judge.base import Question
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.errors import JudgeUsageError
from nextscene.judge.request_builder import RequestBuilder
from nextscene.judge.spending.prices import Price, Usage


@dataclass(frozen=True)
class Assumptions:
    """The unknowns of an estimate. Tokens are those of one answer, thinking included."""

    screened: float
    """The share of clips that pass the rules; only those are asked about."""
    pass_rate: float
    """The share of rounds that end with a Pass."""
    scene_tokens: float
    verdict_tokens: float
    caption_tokens: float
    chars_per_token: float
    """Characters per token of prompts and scenes; smaller means a higher cost."""
    schema_tokens: float
    """The tokens that the API adds to a prompt that asks for JSON."""


CASES = {
    "low": Assumptions(0.5, 0.95, 20, 20, 25, 5.0, 0),
    "expected": Assumptions(1.0, 0.7, 45, 70, 50, 3.3, 150),
    "high": Assumptions(1.0, 0.3, 150, 250, 200, 2.5, 400),
}


def parse_assumptions(text: str) -> dict[str, Assumptions]:
    """Return the three cases, with the values in `text` fixed in all of them: `pass_rate=0.8,scene_tokens=40`.

    Raise JudgeUsageError.
    """
    known = [field.name for field in fields(Assumptions)]
    fixed: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        name = name.strip().replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"is {near[0]} meant?" if near else f"there are {', '.join(known)}"
            raise JudgeUsageError(f"{part}: there is no assumption of that name; {hint}")
        try:
            fixed[name] = float(value)
        except ValueError as error:
            raise JudgeUsageError(f"{part}: {value!r} is not a number") from error
        top = 1.0 if name in ("screened", "pass_rate") else 1e6
        if not (0 < fixed[name] <= top or (name == "schema_tokens" and fixed[name] == 0)):
            raise JudgeUsageError(f"{part}: it must lie above 0 and not above {top:g}")
    return {case: replace(assumptions, **fixed) for case, assumptions in CASES.items()}


@dataclass(frozen=True)
class Bill:
    """Expected totals of calls and tokens."""

    calls: float = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0

    def __add__(self, other: Bill) -> Bill:
        return Bill(
            self.calls + other.calls, self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens
        )

    def __mul__(self, times: float) -> Bill:
        return Bill(self.calls * times, self.input_tokens * times, self.output_tokens * times)

    def usd(self, price: Price, in_batch: bool) -> Decimal:
        """Return US dollars, at single-call or batch prices; prompts are assumed to be below the long-prompt price."""
        tokens = Usage(round(self.input_tokens), round(self.output_tokens))
        return replace(price, long_prompt=2**63).cost(tokens, in_batch)


@dataclass(frozen=True)
class PendingClip:
    """A clip that is not decided: its caption, and the progress of the judge by stored answers.

    `pictures` is the number of frames that it must be captioned from, if it has no caption.
    """

    caption: str
    pictures: int = 0
    rounds_done: int = 0
    described: bool = False
    """True if the scene of the current round is stored."""
    captioned: bool = False
    """True if the judge has captioned it."""


class Estimator:
    """An estimator of the cost of clips under one set of assumptions."""

    def __init__(self, settings: ClaudeConfig, price: Price, assumptions: Assumptions) -> None:
        self._settings = settings
        self._assumed = assumptions
        self._requests = RequestBuilder(settings, price)
        picture = Frame(0.0, round(settings.frame_height * 832 / 480), settings.frame_height, b"")
        self._picture_tokens = picture.tokens + len("0.00 s:") / assumptions.chars_per_token
        # The lengths of the templates, from real requests with empty texts.
        empty = Question("", "")
        scene = "x" * round(assumptions.scene_tokens * assumptions.chars_per_token)
        self._describe = [
            _length(self._requests.describe(empty, (scene,) * failed)) for failed in range(settings.rounds)
        ]
        self._verify = _length(self._requests.verify(empty, scene))
        self._caption = _length(self._requests.caption(empty))

    def bill(self, clip: PendingClip) -> Bill:
        """Return the expected cost of one clip that passes the screen or has passed it."""
        assumed = self._assumed
        total = Bill()
        letters = float(len(self._requests.value(clip.caption)))
        if not clip.caption:
            letters = assumed.caption_tokens * assumed.chars_per_token
            total += Bill() if clip.captioned else self._captioning(clip.pictures)
        reached = 1.0
        for done in range(clip.rounds_done, self._settings.rounds):
            if not (clip.described and done == clip.rounds_done):
                total += self._call(self._describe[done] + letters, 0, assumed.scene_tokens) * reached
            verify = self._call(self._verify + letters, assumed.schema_tokens, assumed.verdict_tokens)
            total += verify * reached
            reached *= 1 - assumed.pass_rate
        untouched = not (clip.rounds_done or clip.described or clip.captioned)
        return total * assumed.screened if untouched else total

    def captioning(self, pictures: int) -> Bill:
        """Return the expected cost of captioning the clip from so many pictures, which `bill` includes."""
        return self._captioning(pictures) * self._assumed.screened

    def _captioning(self, pictures: int) -> Bill:
        return self._call(self._caption, pictures * self._picture_tokens, self._assumed.caption_tokens)

    def _call(self, letters: float, further_tokens: float, answer_tokens: float) -> Bill:
        return Bill(1, letters / self._assumed.chars_per_token + further_tokens, answer_tokens)


def _length(request: Request) -> float:
    return len(request.system) + len(request.text)

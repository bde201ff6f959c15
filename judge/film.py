"""The judge `film`: the scene before a shot is the caption of the preceding shot of the same film.

It needs no key and no network, and its scenes did happen. It is not the paper's method, which asks a language model to
imagine the scene; all data made with it is marked `film`.
"""

from __future__ import annotations

import re

from nextscene.judge.base import JudgeText, NoVerdict, Question, Verdict
from nextscene.judge.judge_kind import JudgeKind

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_FUNCTION_WORDS = frozenset(
    """
    a above across after against along among an and are around as at away back be been before behind below beside
    between both but by can do does down each for from had has have he her here him his how i in inside into is it its
    itself just like more most near next no not of off on one onto or other out outside over own past she so some such
    than that the their them then there these they this those three through to toward towards two under up upon very
    was we were what when where which while who with without you your
    """.split()
)


class FilmJudge:
    """A judge that passes a scene if its `overlap` with the caption is below `max_overlap`. One round."""

    name = "film"
    rounds = 1
    prompt_sha256 = ""

    def __init__(self, max_overlap: float) -> None:
        self.max_overlap = max_overlap

    async def caption(self, question: Question) -> JudgeText:
        """Raise NoVerdict: this judge cannot see."""
        raise NoVerdict("rejected", "no_caption", "the source gives no caption for it")

    async def describe(self, question: Question, rejected_scenes: tuple[str, ...] = ()) -> JudgeText:
        """Return the caption of the preceding shot, unchanged. Raise NoVerdict for the first shot of a source."""
        if not question.preceding_caption:
            raise NoVerdict(
                "rejected",
                "first_shot",
                "no caption of a shot just before it in the same source video: it is the first one, or that has none",
            )
        return JudgeText(question.preceding_caption)

    async def verify(self, question: Question, scene: str) -> Verdict:
        """Apply the redundancy check of the paper as a rule on words."""
        share, common = overlap(scene, question.caption)
        passed = share < self.max_overlap
        sign = "<" if passed else "≥"
        words = f" ({', '.join(sorted(common))})" if common else ""
        reason = f"shared content words {share:.2f} {sign} {self.max_overlap:.2f}{words}"
        return Verdict("Pass" if passed else "Fail", reason, self.name)


FILM = JudgeKind(
    name="film",
    method="each scene is the caption of the shot before the clip in the same video, kept if the two share few words;"
    " this is not the method of arXiv 2512.13015, in which a language model writes and verifies the scene",
    open=lambda settings: FilmJudge(settings.max_overlap),
    settings="film",
    heading="Not the paper’s method.",
    reads_preceding=True,
    has_one_round=True,
)


def overlap(scene: str, caption: str) -> tuple[float, set[str]]:
    """Return |common| / |the smaller set of content words|, in [0, 1], and the common words; 0 if a text has none."""
    before, now = content_words(scene), content_words(caption)
    common = before & now
    return len(common) / max(1, min(len(before), len(now))), common


def content_words(text: str) -> set[str]:
    """Return the content words in lower case, without possessive and plural endings."""
    words = (word.removesuffix("'s") for word in _WORD.findall(text.casefold().replace("’", "'")))
    return {_singular(word) for word in words if word not in _FUNCTION_WORDS}


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word

"""Expected cost of captioning the clips that have no caption. Tested in tests/pipelines/cli/test_estimate.py."""

from __future__ import annotations

from collections import Counter

from nextscene.curation.config import BuildConfig
from nextscene.curation.sources.clip import is_image
from nextscene.judge.spending.estimate import Assumptions, Bill, Estimator
from nextscene.judge.spending.prices import Price


class UncaptionedClips:
    """Clips without a caption, counted by the number of frames that each would be captioned from."""

    def __init__(self, config: BuildConfig) -> None:
        self._config = config
        self._clips: Counter[int] = Counter()

    def add(self, name: str) -> None:
        self._clips[frames_to_caption(name, self._config)] += 1

    @property
    def count(self) -> int:
        return self._clips.total()

    def bill(self, price: Price, assumed: Assumptions) -> Bill:
        """Return the expected cost of captioning them all, without the calls that follow."""
        estimator = Estimator(self._config.claude, price, assumed)
        bills = (estimator.captioning(pictures) * clips for pictures, clips in self._clips.items())
        return sum(bills, Bill())


def frames_to_caption(name: str, config: BuildConfig) -> int:
    """Return the number of frames to caption a clip from. A video is assumed to be long enough for all of them."""
    return 1 if is_image(name) else config.claude.frames

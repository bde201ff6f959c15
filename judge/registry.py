"""The judges that a configuration may name. Importing it loads neither anthropic nor torch.

Add a judge: define its `JudgeKind` in a module of its own, and add it to `JUDGES` (docs/extending.md).
"""

from __future__ import annotations

from nextscene.judge.claude import CLAUDE
from nextscene.judge.film import FILM
from nextscene.judge.given import GIVEN
from nextscene.judge.judge_kind import JudgeKind

NONE = JudgeKind(
    name="none",
    method="no scenes: the caption is the conditioning text, as for text-to-video pre-training",
    open=lambda settings: None,
    heading="A set for pre-training.",
    writes_scenes=False,
)

JUDGES: dict[str, JudgeKind] = {kind.name: kind for kind in (FILM, CLAUDE, GIVEN, NONE)}
"""Name → kind."""


def is_paid(name: object) -> bool:
    """Return whether answers of the judge of this name are paid for; False for an unknown name."""
    return isinstance(name, str) and name in JUDGES and JUDGES[name].pays


def settings_of(name: object) -> str:
    """Return the table of settings that decides the answers of the judge of this name; "" for an unknown name."""
    return JUDGES[name].settings if isinstance(name, str) and name in JUDGES else ""

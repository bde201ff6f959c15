"""A source that lies elsewhere than where it was planned: is it the same?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from curation.config import Config
from curation.plan import Plan, write_plan
from curation.sources import Source
from curation.terms import Terms
from shards.scratch import scratch_folder
from shards.storage import Storage


def clips_that_differ(out: Storage, source: Source, config: Config, terms: Terms | None) -> tuple[int, int]:
    """Plan the source anew, and count the clips that have not the id and the size that they were planned with.

    Of the others, those with another caption are counted too. Reads no contents, which are looked at clip by clip.
    Raises UsageMistake for what planning refuses.
    """
    willing = terms and replace(terms, uncaptioned="caption")  # what was to become of them is in the plan that stands
    with scratch_folder() as folder:
        draft = Storage.at(folder)
        write_plan(draft, source, config, willing, digests=False)
        different = recaptioned = 0
        for before, now in zip_longest(Plan(out, config).rows(), Plan(draft, config).rows(), fillvalue=_NO_CLIP):
            if any(before[name] != now[name] for name in ("clip_id", "size")):
                different += 1
            elif before["caption"] != now["caption"]:
                recaptioned += 1
        return different, recaptioned


_NO_CLIP: Mapping[str, Any] = {"clip_id": "", "size": 0}

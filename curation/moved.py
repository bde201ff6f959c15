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


def clips_that_differ(out: Storage, source: Source, config: Config, terms: Terms | None) -> int:
    """Plan the source anew, and count the clips that have not the id and the size that they were planned with.

    Reads no contents, which are looked at clip by clip. Raises UsageMistake for what planning refuses.
    """
    willing = terms and replace(terms, uncaptioned="caption")  # what was to become of them is in the plan that stands
    with scratch_folder() as folder:
        draft = Storage.at(folder)
        write_plan(draft, source, config, willing, digests=False)
        before, now = (map(_id_and_size, Plan(place, config).rows()) for place in (out, draft))
        return sum(a != b for a, b in zip_longest(before, now))


def _id_and_size(row: Mapping[str, Any]) -> tuple[str, int]:
    return row["clip_id"], row["size"]

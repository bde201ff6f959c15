"""Functions that open the source and OUT, before a run reads or writes either.

Tested in tests/pipelines/test_bad_input.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from nextscene.common.errors import SourceGone, UsageError
from nextscene.common.location import is_inside
from nextscene.common.storage import BadLocation, Storage
from nextscene.common.typed_path import check_typed_path
from nextscene.curation.config import BuildConfig
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.run.judge_preflight import is_finished
from nextscene.curation.sources import Source
from nextscene.curation.sources.several import expected_source, source_at
from nextscene.shards.format.folder_mark import DATASET, NotOurs, check_folder, claimed


def open_out(location: str) -> Storage:
    """Return OUT as storage, for reading. Raise UsageError for an invalid location."""
    try:
        out = Storage.at(check_typed_path(location))
        check_folder(out)
    except BadLocation as mistake:
        raise UsageError(f"`out` {mistake}") from mistake
    return out


def open_source_and_out(source_location: str, out_location: str, config: BuildConfig) -> tuple[Source, Storage]:
    """Return source and OUT. Raise UsageError if one is inside the other: a run must not read its own shards.

    Raise SourceGone if nothing is at the location that OUT was planned from.
    """
    out = open_out(out_location)
    source = _source_of(out, source_location, config)
    for part in source.parts:
        if not part.path and is_inside(out, part.root):
            raise UsageError(
                f"`out` {out.display_uri} lies inside `source` {part.display_uri}, and the next run would take its"
                " shards for videos; name a folder elsewhere"
            )
        if is_inside(part.root, out, part.path):
            raise UsageError(
                f"`source` {part.display_uri} lies inside `out` {out.display_uri}, which is to hold the dataset alone;"
                " name another `out`"
            )
    return replace(source, out=out, selection=config.selection, caption_lines=config.caption_lines), out


def _source_of(out: Storage, location: str, config: BuildConfig) -> Source:
    """Return the source. If nothing is there, raise SourceGone if OUT was planned from there, otherwise UsageError."""
    try:
        return source_at(location, config.map, config.source_settings)
    except UsageError as mistake:
        try:
            recorded = RecordedConfig.read(out)
        except UsageError:
            recorded = None
        if recorded and recorded.source == expected_source(location).recorded_uri:
            raise SourceGone(
                f"`source` {recorded.source} is not there, and {out.display_uri} was planned from it; mount its disk"
                " and run the same command again, or, if it has moved, name its new place with `source`",
                location,
            ) from mistake
        raise


def open_for_build(
    source_location: str, out_location: str, config: BuildConfig
) -> tuple[Source, Storage, SourceGone | None]:
    """Return source, OUT and None; for a finished OUT whose source is missing, the expected source and the error.

    A finished dataset may not need its source: the caller raises the error once it does. Raise as
    `open_source_and_out`.
    """
    try:
        return *open_source_and_out(source_location, out_location, config), None
    except SourceGone as gone:
        out = open_out(out_location)
        if not is_finished(out, config):
            raise
        return expected_source(gone.location), out, gone


@contextmanager
def claim_out(out: Storage) -> Iterator[Storage]:
    """Yield OUT for writing, marked as a dataset. Raise UsageError if it holds anything else."""
    try:
        with claimed(out, DATASET) as ours:
            yield ours
    except NotOurs as mistake:
        raise UsageError(f"`out` {mistake}") from mistake

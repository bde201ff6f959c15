"""`nextscene show`: an overview of a dataset, the content of one shard, or the whole history of one clip."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from nextscene.pipelines.cli import startup  # noqa: F401  before all that may be missing, and all that takes its time

# isort: split
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import click
from rich.console import Console
from rich.text import Text

from nextscene.common.errors import UsageError
from nextscene.common.location import is_inside
from nextscene.common.storage import BadLocation, Storage
from nextscene.common.text import many
from nextscene.common.typed_path import check_typed_path
from nextscene.curation import inspect
from nextscene.curation.config import BuildConfig
from nextscene.curation.inspect import ClipHistory, DatasetOverview, EndedClips, OpenDataset, ShardHistory
from nextscene.curation.inspect.shard import ClipEnd
from nextscene.curation.ledger import Row
from nextscene.curation.outcome import OUTCOMES
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.run.locations import open_out
from nextscene.curation.sources import OPEN_END
from nextscene.pipelines.build_nsp import main as build
from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.begun_dataset import config_of
from nextscene.pipelines.cli.command import Command
from nextscene.pipelines.cli.console import visible
from nextscene.pipelines.cli.exit_codes import GoOn, handle_errors
from nextscene.pipelines.cli.flag_names import with_flags
from nextscene.pipelines.cli.shell import command
from nextscene.shards.format.dataset_hints import describe_folder
from nextscene.shards.format.folder_mark import check_folder
from nextscene.shards.format.layout import CONFIG, ShardName

Story = DatasetOverview | ShardHistory | ClipHistory | EndedClips
_KINDS: dict[type, str] = {DatasetOverview: "dataset", ShardHistory: "shard", ClipHistory: "clip", EndedClips: "ended"}
_REASON = re.compile(r"[a-z_]+")


@click.command(cls=Command)
@click.argument("out")
@click.argument("what", default="")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
@click.option(
    "--extract",
    "folder",
    metavar="FOLDER",
    help="Also write the members of the clip, or of all clips of the shard, into FOLDER.",
)
@handle_errors(
    GoOn("nothing in OUT was changed", "run the same command again"), damaged="the dataset in {out} is damaged: {}"
)
def main(out: str, what: str, as_json: bool, folder: str | None) -> None:
    """Show the dataset in OUT, or one clip or shard of it.

    OUT is a path or s3://… Without WHAT the dataset is shown at a glance. WHAT is a clip, for its whole history (plan,
    rounds, verdict, paid calls, outcome, sample), or a shard, such as train/nsp-000003 or the path of its tar, for its
    samples, each read and checked, and the clips that are not in it. A clip is named by its id or the first letters of
    that (at least 6), by its file or the end of the file's path, with or without suffix, or by its `id` in the
    manifest. WHAT may also be an outcome, such as rejected, or a reason, such as no_caption: then the clips that ended
    so are listed. This works during a run, and on copies without plan, ledger or calls.

    Exit codes: 0 shown, 1 what is shown is damaged, 2 wrong usage, 3 stopped by storage, or by SIGTERM, SIGHUP or
    SIGUSR1, 130 by Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # a caption may contain characters that the terminal cannot encode
    place = open_out(out)
    story = inspect.read_dataset(place, _config(place), lambda opened: _story(opened, what))
    damages = _damages(story)
    written = _extracted(place, story, folder) if folder is not None and not damages else []
    if as_json:
        click.echo(_as_json(place, story))
    else:
        _print(Page(place.display_uri), story)
    if written:
        console.err.print(f"{many(len(written), 'file')} written into {folder}", markup=False)
    if damages:
        console.fail(f"the dataset in {out} is damaged: {damages[0]}", console.ATTENTION)
    sys.exit(console.DONE)


def _config(out: Storage) -> BuildConfig | None:
    recorded = RecordedConfig.read(out)
    return config_of(recorded, out) if recorded else None


def _story(opened: OpenDataset, what: str) -> Story:
    if not what:
        return _with_flags_of_build(inspect.dataset_overview(opened))
    if shard := inspect.shard_named(opened.out, what):
        return inspect.shard_history(opened, inspect.find_shard(opened, shard))
    if what in OUTCOMES and (ended := inspect.ended_clips(opened, what)):
        return ended
    try:
        return inspect.clip_history(opened, inspect.find_clip(opened, what))
    except UsageError:
        if _REASON.fullmatch(what) and (ended := inspect.ended_clips(opened, what)):
            return ended
        raise


def _with_flags_of_build(now: DatasetOverview) -> DatasetOverview:
    """Return the overview with flags in its advice, which are those of the command that retries."""
    return replace(now, retries=tuple(replace(one, why=with_flags(one.why, build)) for one in now.retries))


def _damages(story: Story) -> list[str]:
    if isinstance(story, ClipHistory):
        return [story.sample.damage] if story.sample and story.sample.damage else []
    return story.damages if isinstance(story, ShardHistory) else []


def _extracted(out: Storage, story: Story, folder: str) -> list[str]:
    if isinstance(story, DatasetOverview | EndedClips):
        raise UsageError("--extract needs a clip or a shard; name one behind OUT")
    samples = story.samples if isinstance(story, ShardHistory) else (story.sample,) if story.sample else ()
    name = ShardName.of(samples[0].tar) if samples else None
    if name is None:
        raise UsageError("--extract: there is no sample of it in a sealed shard")
    try:
        place = Storage.at(check_typed_path(folder))
        check_folder(place)
    except BadLocation as mistake:
        raise UsageError(f"--extract {mistake}") from mistake
    if is_inside(place, out) or describe_folder(place):
        raise UsageError(
            f"--extract {place.display_uri} holds {describe_folder(place) or 'the dataset'}; name another folder"
        )
    return inspect.extract(out, name, [sample.key for sample in samples], place)


def _as_json(out: Storage, story: Story) -> str:
    """Return the story as one JSON object in ASCII, so that nothing in it can move a terminal's cursor."""
    value = {"kind": _KINDS[type(story)], "dataset": out.display_uri, **asdict(story)}
    for column in ("turned_down", "calls"):  # the fields `rounds` and `calls` have them, unpacked
        (value.get("ledger") or {}).pop(column, None)
    return json.dumps(value, indent=1)


# ---- for people ------------------------------------------------------------------------------------------------


class Page:
    """Lines on stdout. Lines of a table are cut to the width of the terminal; without a terminal they are complete."""

    def __init__(self, out: str) -> None:
        """Create the page. `out` is the location of the dataset, as a user names it."""
        self.out = out
        self._console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)

    def say(self, label: str, text: str) -> None:
        self._console.print(f"{visible(label):<9} {visible(text)}".rstrip())

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Print a table. The first row is the heading. All columns but the last are padded to their longest cell."""
        seen = [[visible(cell) for cell in row] for row in rows]
        widths = [max(len(row[column]) for row in seen) for column in range(len(seen[0]) - 1)]
        for row in seen:
            line = Text("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]))
            if self._console.is_terminal:
                line.truncate(self._console.width, overflow="ellipsis")
            self._console.print(line)

    def next(self, program: str, *words: str, why: str = "") -> None:
        self.say("next", command(program, *words) + (f"  # {why}" if why else ""))


def _print(page: Page, story: Story) -> None:
    if isinstance(story, DatasetOverview):
        _print_glance(page, story)
    elif isinstance(story, ShardHistory):
        _print_shard(page, story)
    elif isinstance(story, EndedClips):
        _print_ended(page, story)
    else:
        _print_clip(page, story)
    if story.missing:
        page.say("not here", f"{', '.join(story.missing)}: what they alone say is not shown")


def _print_glance(page: Page, now: DatasetOverview) -> None:
    page.say("dataset", f"{page.out}: {'complete' if now.complete else 'not complete'}")
    page.say("judge", f"{now.judge or 'unknown'}{': ' if now.method else ''}{now.method}")
    if now.planned is not None or now.outcomes is not None:
        planned = "" if now.planned is None else f" of {now.planned:,}"
        page.say("clips", f"{now.decided:,}{planned} decided" if now.outcomes is not None else f"{now.planned:,}")
    for outcome, reason, count in now.outcomes or ():
        page.say("", f"{outcome} {reason} {count:,}" if reason else f"{outcome} {count:,}")
    for split in now.splits:
        page.say(
            split.split,
            f"{many(split.samples, 'sample')} in {many(split.shards, 'shard')}, {split.bytes / 1e6:,.1f} MB",
        )
    if now.spending:
        lost = f"; up to ${now.spending.lost_usd:,.4f} lost" if now.spending.lost_usd else ""
        page.say("spent", f"${now.spending.spent_usd:,.4f} for {now.spending.answers:,} answers{lost}")
    if now.runner:
        how = "at work" if now.runner.alive else "died"
        page.say("run", f"{now.runner.run_id} on {now.runner.host}, process {now.runner.pid}: {how}")
    if now.example:
        page.next("show", page.out, now.example)
    if now.runner and now.runner.alive:
        page.next("status", page.out)
    elif CONFIG not in now.missing and not now.complete:
        page.next("build", "--out", page.out)
    elif CONFIG not in now.missing:
        for one in now.retries:
            page.next("retry", page.out, one.outcomes, why=one.why)
        page.next("verify", page.out)


def _print_shard(page: Page, shard: ShardHistory) -> None:
    page.say("shard", f"{shard.name}: {'sealed' if shard.sealed else 'not sealed yet'}")
    if shard.decided is not None:
        planned = "" if shard.planned is None else f" of {shard.planned:,}"
        page.say("clips", f"{shard.decided:,}{planned} decided, {shard.kept:,} kept")
    if shard.tar:
        page.say("tar", f"{shard.tar}, {shard.bytes:,} bytes, sha256 {shard.sha256}")
    if shard.samples:
        heading = ["key", "frames", "size", "bytes", "state", "text"]
        page.table(
            [
                heading,
                *(
                    [
                        sample.key,
                        str(sample.frames),
                        f"{sample.width}×{sample.height}",
                        f"{sum(sample.sizes.values()):,}",
                        "damaged" if sample.damage else "whole",
                        sample.damage or sample.text,
                    ]
                    for sample in shard.samples
                ),
            ]
        )
    if shard.not_kept:
        page.say("", "")
        page.table(_ends("not kept", shard.not_kept))


def _print_ended(page: Page, ended: EndedClips) -> None:
    page.say("clips", f"{ended.count:,} ended as {ended.wanted}")
    if ended.clips:
        page.table(_ends("clip", ended.clips))
        page.next("show", page.out, ended.clips[0].clip_id)
    if left_out := ended.count - len(ended.clips):
        page.say("not here", f"{many(left_out, 'more clip')}; the ledgers have all")


def _ends(heading: str, clips: Sequence[ClipEnd]) -> list[list[str]]:
    rows = ([clip.clip_id, clip.source, clip.outcome, clip.reason, clip.detail] for clip in clips)
    return [[heading, "file", "outcome", "reason", "detail"], *rows]


def _print_clip(page: Page, clip: ClipHistory) -> None:
    page.say("clip", clip.clip_id)
    page.say("shard", f"{clip.shard}, {_STANDINGS[clip.standing]}")
    for label, text in _origin(clip):
        page.say(label, text)
    for one in clip.rounds:
        page.say(f"round {one.number}", f"{one.verdict}: {one.scene}")
        page.say("", one.reason)
    if clip.ledger:
        for label, text in _judged(clip.ledger):
            page.say(label, text)
    if clip.calls:
        told = [[str(call.get(name, "")) for name in _CALL_COLUMNS] for call in clip.calls]
        answers = [str(call.get("answer") or call.get("explanation", "")) for call in clip.calls]
        page.table([[*_CALL_COLUMNS, "answer"], *([*row, answer] for row, answer in zip(told, answers, strict=True))])
    if clip.ledger:
        row = clip.ledger
        page.say("outcome", ": ".join(filter(None, [f"{row.outcome} {row.reason}".rstrip(), row.detail])))
        page.say("run", f"{row.run_id} on {row.host}, {row.finished_at}")
    if clip.sample:
        sample = clip.sample
        sizes = ", ".join(f"{member} {size:,}" for member, size in sample.sizes.items())
        page.say("sample", f"{sample.tar} at byte {sample.offset:,}: {sizes} bytes")
        page.say("video", f"{sample.frames:,} frames of {sample.width}×{sample.height}")
        page.say("state", sample.damage or f"whole: checksum {sample.crc32:08x}, headers, record and video fit")
        page.say("text", sample.text)
        page.next("show", page.out, clip.clip_id, "--extract", "FOLDER")


_STANDINGS = {"sealed": "sealed", "committed": "decided, not sealed yet", "waiting": "still to be done"}
_CALL_COLUMNS = ["task", "model_served", "status", "input_tokens", "output_tokens", "usd", "tries", "shared", "prompt"]


def _origin(clip: ClipHistory) -> Iterator[tuple[str, str]]:
    """Yield labels and texts about the clip's source, from the plan, else the ledger, else the sample's record."""
    planned, row, record = clip.planned, clip.ledger, clip.sample.record if clip.sample else {}
    if planned:
        yield "plan", f"position {planned.position:,}, unit {planned.unit:,} of {planned.split}"
        yield "source", f"{planned.name}, {_span(planned.start_ms, planned.end_ms)}"
        if named := dict.fromkeys(name for name in (planned.location, planned.identity) if name != planned.name):
            yield "known as", ", ".join(named)
    elif row:
        yield "source", f"{row.source}, {_span(row.start_ms, row.end_ms)}"
    elif record:
        yield from ((label, str(record[label])) for label in record)
        return
    caption = row.caption if row else planned.caption if planned else ""
    yield "caption", caption + (f" (by {row.captioned_by})" if row and row.captioned_by else "")
    if scene := planned.scene if planned else row.scene_description if row and not row.verdict else "":
        yield "scene", f"{scene} (given, not verified)"
    provenance = planned.provenance if planned else record.get("provenance", "")
    if provenance:
        yield "from", provenance
    if row and row.source_width > 0:
        yield "measured", f"{row.source_width}×{row.source_height}, {row.codec}, {row.duration:,.3f} s"


def _judged(row: Row) -> Iterator[tuple[str, str]]:
    if row.verdict:
        by = row.judge if row.judge_model in ("", row.judge) else f"{row.judge_model} ({row.judge})"
        yield "verdict", f"{row.verdict} in round {row.rounds}, by {by}"
    if row.prompt_sha256:
        yield "prompt", f"sha256 {row.prompt_sha256}" + (f", asked anew as {row.sample}" if row.sample else "")
    if row.calls:
        yield "paid", f"${row.usd:,.6f}: {row.input_tokens:,} tokens in, {row.output_tokens:,} out"


def _span(start_ms: int, end_ms: int) -> str:
    end = "the end" if end_ms == OPEN_END else f"{end_ms / 1000:.3f} s"
    return f"{start_ms / 1000:.3f} s to {end}"


if __name__ == "__main__":
    main()

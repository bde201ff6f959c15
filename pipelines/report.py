"""`nextscene report`: `report.html`, the page about a dataset, a training run or an evaluation."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from nextscene.pipelines.cli import startup  # noqa: F401  before all that may be missing, and all that takes its time

# isort: split

import click

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage, StorageFault
from nextscene.common.text import many
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.run.locations import claim_out, open_out
from nextscene.curation.sources import Root
from nextscene.curation.sources.several import source_at
from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.begun_dataset import config_of
from nextscene.pipelines.cli.command import Command
from nextscene.pipelines.cli.exit_codes import GoOn, handle_errors
from nextscene.pipelines.cli.shell import command
from nextscene.shards.format.checksums import update_checksum
from nextscene.shards.format.dataset_hints import describe_folder, explain_missing_dataset
from nextscene.shards.format.folder_mark import EVALUATION, KIND_NAMES, RUN
from nextscene.shards.format.layout import MARK, REPORT
from nextscene.training.checkpoint_info import METRICS


@click.command(cls=Command)
@click.argument("out")
@handle_errors(GoOn("nothing was changed", "run the same command again"), damaged="the dataset in {out} is damaged: {}")
def main(out: str) -> None:
    """Write OUT/report.html, the page of a dataset, training or evaluation.

    It needs no network. OUT is a path, or s3://… for a dataset. Every build, training and evaluation ends with this; it
    may also be called during one. Clips of a dataset that are in no shard are shown from the source, if that is
    still there. Videos of a run or an evaluation play as long as the page lies in its folder.

    Exit codes: 0 done, 1 the dataset is damaged, 2 wrong usage, 3 stopped by storage or machine, or by SIGTERM,
    SIGHUP or SIGUSR1, 130 by Ctrl-C.
    """
    place = open_out(out)
    held = describe_folder(place) if place.is_local else ""
    if held == KIND_NAMES[RUN]:
        from nextscene.training.report.make import write_run_report  # imported late: the page of a dataset needs it not

        write_run_report(_anchored(place))
    elif held == KIND_NAMES[EVALUATION]:
        from nextscene.evaluation.report.make import write_evaluation_report

        write_evaluation_report(_anchored(place))
    else:
        _write_dataset_report(out, place)
        return
    console.out.print(f"report    {place.display_uri}/{REPORT}", markup=False)


def _anchored(place: Storage) -> Storage:
    """Return the folder such that nothing is written if it disappears. One of an older version has no mark."""
    return place.with_anchor(MARK) if place.stat(MARK) else place


def _write_dataset_report(out: str, place: Storage) -> None:
    recorded = RecordedConfig.read(place)
    if recorded is None and place.stat(METRICS):
        raise UsageError(f"{place.display_uri} is a stage of a training run; name the folder above it")
    if recorded is None:
        raise UsageError(f"{place.display_uri} {explain_missing_dataset(place)}")
    config = config_of(recorded, place)
    from nextscene.curation.report.make import (
        write_report,
    )  # imported late: the processes that decode pictures import this file

    with claim_out(place) as ours:
        page = write_report(ours, config, recorded.fingerprint, _root(recorded.source))
        update_checksum(ours, REPORT, page.sha256)
    console.out.print(f"report    {place.display_uri}/{REPORT}", markup=False)
    if damages := page.damages:
        more = f", and {many(len(damages) - 1, 'clip')} more" if len(damages) > 1 else ""
        console.fail(
            f"the dataset in {out} is damaged: {damages[0]}{more}; {command('verify', place.display_uri)}",
            console.ATTENTION,
        )
    sys.exit(console.DONE)


def _root(source: str) -> Root | None:
    """Return that by which locations of the plan are found; print why and return None if it is not available here."""
    try:
        return source_at(source).roots
    except (UsageError, StorageFault) as absent:
        console.err.print(f"{absent}; clips that are in no shard are shown without pictures", markup=False)
        return None


if __name__ == "__main__":
    main()

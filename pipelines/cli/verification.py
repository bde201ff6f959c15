"""`--verify`: the findings of a verification, and the commands that mend what they name.

Tested in tests/curation/verify/test_verify.py.
"""

from __future__ import annotations

from nextscene.common.run_lock import live_holder
from nextscene.common.storage import Storage
from nextscene.common.text import many
from nextscene.curation.config import BuildConfig
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.verify.finding import Remedy
from nextscene.curation.verify.verify import verify
from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.flag_names import with_flags
from nextscene.pipelines.cli.progress import ProgressLine
from nextscene.pipelines.cli.shell import command, deletion


def print_verification(out: Storage, recorded: RecordedConfig, config: BuildConfig) -> int:
    """Verify the dataset, print the findings and, last, the commands that mend it. Return the exit code."""
    runner = live_holder(out)
    if runner:
        console.out.print(
            f"A run is at work there: {runner.run_id} on {runner.host}, process {runner.pid}. What follows may be its"
            " unfinished work; verify again when it has ended.",
            markup=False,
        )
    watch = ProgressLine("verifying")
    try:
        found = list(verify(out, recorded, config, watch))
    finally:
        watch.end()
    for finding in sorted(found, key=lambda finding: not finding.wrong):
        console.out.print(console.visible(with_flags(finding.text)), markup=False)
    problems = sum(finding.wrong for finding in found)
    if not problems:
        console.out.print("The dataset is whole: shards, ledgers, plan and all that sums them up agree.")
        return console.DONE
    remedy = Remedy.of(out, found)
    when = " Once that run has ended:" if runner else ""
    console.out.print(f"{many(problems, 'problem')} found.{when} {_in_words(remedy)}")
    for path in remedy.delete:
        console.out.print(f"  {deletion(out, path)}", markup=False)
    if remedy.build:
        console.out.print(f"  {command('build', '--out', out.display_uri)}", markup=False)
    return console.ATTENTION


def _in_words(remedy: Remedy) -> str:
    copy = "Restore what is named above from a copy"
    if remedy.damaged:
        return f"{copy}, or have it made anew, from a source that still has all of it:"
    if remedy.delete:
        return "These commands mend what needs no copy:"
    return "The build mends what needs no copy:" if remedy.build else f"{copy}."

"""Makes `begun.tar.gz`: a dataset that commit 6f301bc began under the judge `claude`, and that was killed half way.

    git worktree add OLD 6f301bc && cd OLD
    unshare --uts sh -c 'hostname node && PYTHONPATH=$PWD python NEW/tests/begun/make.py NEW/tests/begun/begun.tar.gz'

runs the command of that commit against its own API server on loopback, and kills it (SIGKILL, with all its children)
once the first shard is sealed and half of the clips were asked about. The archive holds `source/` and `out/` as they
were left. The source lay in /tmp/begun/source, which `config.toml` names; the host's name stands in the ledger, hence
the namespace.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tarfile
from pathlib import Path

from tests.command import place
from tests.fakes.claude_api import ClaudeApi, Limits
from tests.fakes.loopback import spans
from tests.support import make_video

CLIPS = 12
MARKED = {1: "FAIL1", 6: "REFUSE-DESCRIBE", 9: "FAIL3"}
HERE = Path("/tmp/begun")
FLAGS = (
    *("--judge", "claude", "--test", "0", "--unit-size", "2", "--units-per-shard", "2", "--workers", "1"),
    *("--rules.min-width", "64", "--rules.min-height", "48", "--encode.width", "64", "--encode.height", "48"),
    *("--claude.rounds", "2", "--limits.calls-at-once", "2"),
)


def main(target: Path) -> None:
    shutil.rmtree(HERE, ignore_errors=True)
    source, out = HERE / "source", HERE / "out"
    manifest = spans(source, [f"thing {i:02d} is seen {MARKED.get(i, '')}".strip() for i in range(CLIPS)])
    make_video(source / "film.mp4", CLIPS * 0.25, "64x48", "16")
    os.utime(source / "film.mp4", (1_700_000_000, 1_700_000_000))
    with ClaudeApi(limits=Limits(latency=0.3)) as api, place() as here:
        env = {**api.env, "ANTHROPIC_AUTH_TOKEN": ""}
        with here.start_build("--source", str(manifest), "--out", str(out), *FLAGS, env=env) as run:
            run.until(lambda: bool(list(out.glob("shards/**/*.receipt.json"))) and len(api.paid) >= CLIPS)
            run.send_group(signal.SIGKILL)
            run.wait()
        asked = len(api.paid)
    with tarfile.open(target, "w:gz") as archive:
        for folder in ("source", "out"):
            archive.add(HERE / folder, folder, filter=_anonymous)
    print(f"{asked} answers paid, {target.stat().st_size} bytes")


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    main(Path(sys.argv[1]))

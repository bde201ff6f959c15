"""Run of all scenarios of clocks and locks, on disk and in S3: `python -m tests.clocks`. It takes some minutes.

There must never be two writers, a healthy run must never be ended, and a dead run must not block for more than two
minutes. `--sample` runs only the scenarios on disk that are in the test suite; `disk` or `S3` only those of that store.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nextscene.common import s3 as _imported_before_the_forks  # noqa: F401
from tests.clocks.scenarios import LONGEST_BLOCKED, RATE, SCENARIOS, STORE_RATE, Scenario, Stage
from tests.clocks.shim import MODULES

_AT_ONCE = 3
_BUCKET = "clocks"
_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


def main() -> None:
    sample = "--sample" in sys.argv
    stores = ["disk"] if sample else [one for one in ("disk", "S3") if one in sys.argv] or ["disk", "S3"]
    for module in filter(importlib.util.find_spec, MODULES):
        importlib.import_module(module)  # before the forks
    chosen = [one for one in SCENARIOS if one.sample or not sample]
    with tempfile.TemporaryDirectory() as name, _store("S3" in stores) as bucket:
        folder = Path(name)
        jobs = [(store, one) for store in stores for one in chosen]
        faults, longest = _play_all(jobs, folder, bucket, timed=not sample)
    print(f"{len(jobs)} scenarios, {faults} faults, nobody blocked for longer than {longest:.0f} s")
    sys.exit(bool(faults))


def _play_all(jobs: list[tuple[str, Scenario]], folder: Path, bucket: str, timed: bool) -> tuple[int, float]:
    left, under_way = list(enumerate(jobs)), {}
    faults, longest = 0, 0.0
    while left or under_way:
        if left and len(under_way) < _AT_ONCE:
            number, (store, scenario) = left.pop(0)
            home = folder / str(number)
            home.mkdir()
            out = f"s3://{_BUCKET}/{number}{bucket}" if store == "S3" else str(home / "out")
            if (pid := os.fork()) == 0:
                os._exit(_play(scenario, out, home, timed))
            under_way[pid] = (store, scenario, home)
            continue
        pid, status = os.wait()
        store, scenario, home = under_way.pop(pid)
        blocked = float((home / "blocked").read_text()) if (home / "blocked").exists() else 0.0
        longest = max(longest, blocked)
        faults += status != 0
        told = "" if status == 0 else f"\n{(home / 'fault').read_text()}"
        print(f"{store:<6}{scenario.relation:<15}{scenario.name:<38}{blocked:5.0f} s{told}", flush=True)
    return faults, longest


def _play(scenario: Scenario, out: str, home: Path, timed: bool) -> int:
    """Play a scenario. Return 0, or 1 after writing a file that says what is wrong."""
    os.setpgid(0, 0)
    rate = STORE_RATE if out.startswith("s3:") else RATE
    stage = Stage(out, home, scenario.relation, scenario.skews, rate)
    try:
        scenario.play(stage)
        (home / "blocked").write_text(str(stage.blocked))
        assert not timed or stage.blocked <= LONGEST_BLOCKED, f"blocked for {stage.blocked:.0f} s"
    except Exception:  # noqa: BLE001
        (home / "fault").write_text(traceback.format_exc())
        return 1
    return 0


@contextmanager
def _store(wanted: bool) -> Iterator[str]:
    """Run a store in a separate process, if `wanted`, and yield the query that ends each URI in it, else ""."""
    if not wanted:
        yield ""
        return
    os.environ |= {"AWS_ACCESS_KEY_ID": "dummy", "AWS_SECRET_ACCESS_KEY": "dummy", "AWS_DEFAULT_REGION": "us-east-1"}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdin and server.stdout
        port = server.stdout.readline().strip()
        endpoint = f"http://127.0.0.1:{port}"
        code = f"import boto3; boto3.client('s3', endpoint_url='{endpoint}').create_bucket(Bucket='{_BUCKET}')"
        subprocess.run([sys.executable, "-c", code], check=True)
        begun = time.monotonic()
        try:
            yield f"?endpoint_override=127.0.0.1:{port}&scheme=http"
        finally:
            server.stdin.close()
            print(f"{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()

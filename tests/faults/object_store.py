"""Runs into an object store that are interrupted at an upload, and runs that are started at the same moment.

`python -m tests.faults.object_store` interrupts a small run at each of its uploads, by SIGTERM, Ctrl-C and SIGKILL:
once so that the upload is cut off, and once so that it arrives but its response is lost. It resumes the run, and
compares the result with that of a run on disk. Then it starts four runs at once, 50 times; another number of rounds may
be given. It prints a table of faults: all numbers must be 0. It takes some minutes.

The store is moto's behind a proxy that, like S3, accepts each request as a whole or not, and one write at a time.
"""

from __future__ import annotations

import http.client
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import boto3
from moto.server import ThreadedMotoServer

from nextscene.common import s3 as _imported_before_the_forks  # noqa: F401
from nextscene.common.errors import RunStopped
from nextscene.common.fence import LOCK
from nextscene.common.lease import Holder
from nextscene.common.process_identity import ProcessIdentity
from nextscene.common.run_lock import hold_lock
from nextscene.common.storage import Storage, StorageFault
from tests.faults.kill_at_step import TINY
from tests.support import REPOSITORY, assert_conserved, assert_same_dataset, build_inline, captioned_spans

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "dummy",
    "AWS_SECRET_ACCESS_KEY": "dummySecretOfTheTests0123",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
INTERRUPTED, STOPPED, KEPT_OUT = 130, 3, 2
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
Fate = Literal["", "cut off", "lands"]
BUCKET = "bucket"


# ---- the store -------------------------------------------------------------------------------------------------


class Proxy:
    """A proxy of moto's server. `fate` decides about each request.

    "" forwards it, "cut off" drops it, and "lands" forwards it but drops the response.
    """

    def __init__(self, upstream: int) -> None:
        self.fate: Callable[[str, str], Fate] = lambda method, path: ""
        self.conditions: Literal["kept", "ignored", "refused"] = "kept"
        self.delay = 0.0
        self._writing = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                fate = proxy.fate(self.command, self.path)
                answer = None if fate == "cut off" or len(body) < length else proxy._forward(upstream, self, body)
                if answer is None or fate == "lands":
                    self.close_connection = True
                    return
                status, headers, data = answer
                lines = [f"HTTP/1.1 {status} .", *(f"{name}: {value}" for name, value in headers)]
                with suppress(OSError):
                    self.wfile.write("\r\n".join([*lines, "", ""]).encode() + data)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # the client was killed

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _forward(self, upstream: int, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[Any], bytes]:
        headers = {name: value for name, value in request.headers.items() if name.lower() != "expect"}
        conditional = [name for name in headers if name.lower() in ("if-match", "if-none-match")]
        time.sleep(self.delay)
        if conditional and request.command == "PUT" and self.conditions != "kept":
            if self.conditions == "refused":
                said = b"<Error><Code>NotImplemented</Code><Message>A header is not implemented.</Message></Error>"
                return 501, [("Content-Length", str(len(said)))], said
            headers = {name: value for name, value in headers.items() if name not in conditional}
        with self._writing if request.command in ("PUT", "POST", "DELETE") else threading.Lock():
            connection = http.client.HTTPConnection("127.0.0.1", upstream)
            connection.request(request.command, request.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            connection.close()
        kept = [
            (name, value) for name, value in answer.getheaders() if name.lower() not in ("connection", "content-length")
        ]
        length = answer.getheader("Content-Length", "0") if request.command == "HEAD" else str(len(data))
        return answer.status, [*kept, ("Content-Length", length)], data


class Store:
    """A bucket, with access directly and through a proxy."""

    def __init__(self, port: int, proxy: Proxy) -> None:
        self.proxy, self._port = proxy, port
        self.client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}")

    def uri(self, path: str, port: int | None = None) -> str:
        return f"s3://{BUCKET}/{path}?endpoint_override=127.0.0.1:{port or self._port}&scheme=http&region=us-east-1"

    def through_proxy(self, path: str) -> str:
        return self.uri(path, self.proxy.port)

    def unfinished(self) -> list[str]:
        return [upload["Key"] for upload in self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())]

    def empty(self, path: str) -> list[str]:
        """Return the empty files, except a lock that was given up."""
        return [
            entry.path
            for entry in Storage.at(self.uri(path)).files(recursive=True)
            if not entry.size and entry.path != LOCK
        ]


@contextmanager
def store() -> Iterator[Store]:
    """Yield a new store. The environment must have the credentials of CREDENTIALS."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    port = moto.get_host_and_port()[1]
    proxy = Proxy(port)
    try:
        found = Store(port, proxy)
        found.client.create_bucket(Bucket=BUCKET)
        yield found
    finally:
        proxy.end()
        moto.stop()


# ---- the runs --------------------------------------------------------------------------------------------------


class Runs:
    """A process without threads from which each run is forked, since it has imported everything."""

    def __init__(self) -> None:
        command, pipe = [sys.executable, "-m", "tests.faults.object_store", "--serve"], subprocess.PIPE
        self._serving = subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, text=True)

    def build(self, source: Path, out: str, begun: Callable[[int], None] = lambda pid: None) -> int:
        """Run a build and return its exit code. `begun` is called with its process number."""
        self._say("build", str(source), out)
        begun(int(self._hear()))
        return int(self._hear())

    def start_at_once(self, count: int, out: str) -> tuple[int, int]:
        """Start `count` runs together; return how many of them got the lock of OUT, and how many had it at once."""
        self._say("start", str(count), out)
        got_in, at_once = json.loads(self._hear())
        return got_in, at_once

    def end(self) -> None:
        assert self._serving.stdin
        self._serving.stdin.close()
        self._serving.wait(30)

    def _say(self, *words: str) -> None:
        assert self._serving.stdin
        print(*words, sep="\t", file=self._serving.stdin, flush=True)

    def _hear(self) -> str:
        assert self._serving.stdout
        return self._serving.stdout.readline()


def _serve() -> None:
    forked = multiprocessing.get_context("fork")
    for line in sys.stdin:
        what, *words = line.rstrip("\n").split("\t")
        if what == "build":
            run = forked.Process(target=_build, args=words)
            run.start()
            print(run.pid, flush=True)
            run.join()
            print(run.exitcode, flush=True)
        else:
            begin, counts = forked.Barrier(int(words[0])), forked.Array("i", 3)
            runs = [forked.Process(target=_start, args=(words[1], n, begin, counts)) for n in range(int(words[0]))]
            for run in runs:
                run.start()
            for run in runs:
                run.join()
            print(json.dumps([counts[0], counts[2]]), flush=True)


def _build(source: str, out: str) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command handles it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        build_inline(source, out, TINY)
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
    except StorageFault:
        os._exit(STOPPED)


def _start(out: str, number: int, begin: Any, counts: Any) -> None:
    """Take the lock once all runs are ready. `counts`: how many got it, how many have it, and the maximum of that."""
    place = Storage.at(out)
    begin.wait()
    with suppress(RunStopped), hold_lock(place, f"run-{number}"):
        with counts.get_lock():
            counts[0] += 1
            counts[1] += 1
            counts[2] = max(counts[2], counts[1])
        place.write(f"by-{number}", b"x")
        time.sleep(0.05)
        with counts.get_lock():
            counts[1] -= 1


# ---- the campaign ----------------------------------------------------------------------------------------------


class Interrupted:
    """A small run, undisturbed on disk and interrupted in the store."""

    def __init__(self, folder: Path, store: Store, runs: Runs) -> None:
        self._store, self._runs = store, runs
        self.source = captioned_spans(folder / "in", 5, seconds=0.125, size="64x48")
        self.undisturbed = folder / "undisturbed"
        build_inline(self.source, self.undisturbed, TINY)

    def uploads(self) -> list[str]:
        """Return the paths that a run writes, in order."""
        written: list[str] = []

        def note(method: str, path: str) -> Fate:
            if method in ("PUT", "POST"):
                written.append(path.partition("?")[0].removeprefix(f"/{BUCKET}/whole/"))
            return ""

        self._store.proxy.fate = note
        assert self._runs.build(self.source, self._store.through_proxy("whole")) == 0
        self._store.proxy.fate = lambda method, path: ""
        return written

    def check(self, number: int, signum: signal.Signals, fate: Fate) -> None:
        """Interrupt a run at its upload number `number`, and resume it. Raise AssertionError for any difference."""
        out = f"{signum.name}-{fate.replace(' ', '-')}-{number}"
        pid, seen = 0, 0
        began = threading.Event()

        def begun(process: int) -> None:
            nonlocal pid
            pid = process
            began.set()

        def strike(method: str, path: str) -> Fate:
            nonlocal seen
            if method not in ("PUT", "POST"):
                return ""
            seen += 1
            if seen != number:
                return ""
            began.wait()
            os.kill(pid, signum)
            time.sleep(0.02)  # the signal must arrive before the upload fails
            return fate

        self._store.proxy.fate = strike
        code = self._runs.build(self.source, self._store.through_proxy(out), begun)
        self._store.proxy.fate = lambda method, path: ""
        assert code in (INTERRUPTED, -signal.SIGKILL), code
        assert self._store.empty(out) == []
        assert self._runs.build(self.source, self._store.through_proxy(out)) == 0
        assert_same_dataset(self.undisturbed, self._store.uri(out), TINY)
        assert_conserved(self._store.uri(out), TINY)
        assert self._store.unfinished() == []


def dead_lock(out: str) -> None:
    """Write the lock that a killed run leaves."""
    dead = replace(Holder.me("dead"), process=replace(ProcessIdentity.me(), start="1"))
    Storage.at(out).write(LOCK, dead.to_bytes())


def main() -> None:
    os.environ |= CREDENTIALS
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, store() as made:
        runs = Runs()
        faults: Counter[str] = Counter()
        run = Interrupted(Path(folder), made, runs)
        uploads = run.uploads()
        print(f"{len(uploads)} uploads in a run\n\n{'interrupted by':<28}{'runs':>6}{'faults':>8}")
        for signum in SIGNALS:
            for fate in ("cut off", "lands"):
                line = f"{signum.name}, upload {fate}"
                for number, path in enumerate(uploads, start=1):
                    try:
                        run.check(number, signum, fate)
                    except Exception as fault:  # noqa: BLE001 - continue with the next upload
                        faults[line] += 1
                        print(f"  upload {number}, {path}: {str(fault)[:300]!r}", file=sys.stderr)
                print(f"{line:<28}{len(uploads):>6}{faults[line]:>8}", flush=True)
        print(f"\n{'four started at once':<28}{'rounds':>6}{'two in':>8}{'none in':>8}")
        for lock in ("none", "given up", "dead"):
            two = none = 0
            for number in range(rounds):
                made.proxy.delay = 0.005 * (number % 4)
                out = f"starts-{lock.replace(' ', '-')}-{number}"
                if lock == "given up":
                    runs.start_at_once(1, made.through_proxy(out))
                elif lock == "dead":
                    dead_lock(made.uri(out))
                got_in, at_once = runs.start_at_once(4, made.through_proxy(out))
                two, none = two + (at_once > 1), none + (got_in == 0)
            faults["starts"] += two
            print(f"{f'lock: {lock}':<28}{rounds:>6}{two:>8}{none:>8}", flush=True)
        runs.end()
    print(f"\n{time.monotonic() - begun:.0f} s")
    sys.exit(bool(sum(faults.values())))


if __name__ == "__main__":
    _serve() if "--serve" in sys.argv else main()

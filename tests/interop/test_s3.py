"""Source and OUT in an object store: the same dataset as on disk, whatever the network and the credential do."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import logging
import signal
import socket
import socketserver
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import boto3
import pytest
from click.testing import CliRunner, Result
from moto.server import ThreadedMotoServer
from pyarrow import fs as pafs
from tenacity import stop_after_attempt

from nextscene.common import filesystem
from nextscene.common.errors import RunStopped, UsageError
from nextscene.common.patterns import matching_files
from nextscene.common.run_lock import hold_lock, holder
from nextscene.common.storage import Storage, StorageFault
from nextscene.curation.sources.tables import rows_of
from nextscene.pipelines.build_nsp import main
from tests.command import SMALL_FLAGS, Ended, Place, fault_injection, place
from tests.support import (
    SMALL,
    assert_conserved,
    assert_same_dataset,
    build_inline,
    captioned_spans,
    decided,
    ledger,
    make_video,
    write_csv,
)

pytestmark = pytest.mark.slow

SECRET, TOKEN = "dummySecretOfTheTests0123", "dummyTokenOfTheTests4567"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "dummy",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_SESSION_TOKEN": TOKEN,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
SPANS = 12


class Bucket:
    """A bucket behind a server on loopback, seen through `port`."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.port = name, port

    @property
    def query(self) -> str:
        return f"?endpoint_override=127.0.0.1:{self.port}&scheme=http"

    def uri(self, path: str = "") -> str:
        return f"s3://{self.name}{'/' if path else ''}{path}{self.query}"

    def at(self, path: str = "") -> Storage:
        return Storage.at(self.uri(path))

    def upload(self, folder: Path, to: str) -> None:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.at(to).write(str(file.relative_to(folder)), file.read_bytes())

    def through(self, port: int) -> Bucket:
        return Bucket(self.name, port)


@pytest.fixture(scope="module")
def credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        yield


@pytest.fixture(scope="module")
def server(credentials: None) -> Iterator[int]:
    """The port of a server that speaks S3."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    yield moto.get_host_and_port()[1]
    moto.stop()


@pytest.fixture
def bucket(server: int) -> Bucket:
    """An empty bucket."""
    return _new_bucket(server)


@pytest.fixture(scope="module")
def film(server: int, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A captioned film on disk, and the dataset made of it there."""
    folder = tmp_path_factory.mktemp("film")
    manifest = captioned_spans(folder / "in", SPANS)
    build_inline(manifest, folder / "out", SMALL)
    return manifest, folder / "out"


def _new_bucket(port: int) -> Bucket:
    name = f"test-{next(_numbers)}"
    _filesystem(port).create_dir(name)
    return Bucket(name, port)


_numbers = itertools.count()


def _filesystem(port: int) -> pafs.S3FileSystem:
    return pafs.S3FileSystem(
        endpoint_override=f"127.0.0.1:{port}", scheme="http", allow_bucket_creation=True, allow_bucket_deletion=True
    )


# ---- tables ----------------------------------------------------------------------------------------------------


def test_tables_are_found_and_read_in_a_bucket_as_on_disk(bucket: Bucket, tmp_path: Path) -> None:
    for name in ("a.csv", "sub/b.csv", "sub/.c.csv", "sub/d.tsv", "sub2/deep/e.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("n,t\n" + f"1,{name}\n" * 50_000)
    (tmp_path / "f.json.gz").write_bytes(gzip.compress(json.dumps([{"n": 1}, {"n": 2}]).encode()))
    bucket.upload(tmp_path, "tables")
    disk, store = Storage.at(tmp_path), bucket.at("tables")
    for pattern in ("*.csv", "sub*/*.csv", "*/*/*", "sub/.*", "a.csv", "*.gz"):
        found = sorted(matching_files(disk, pattern))
        assert sorted(matching_files(store, pattern)) == found
        assert all(list(rows_of(store, path)) == list(rows_of(disk, path)) for path in found)
    assert [*matching_files(store, "none/*.csv"), *matching_files(store, "sub/*.none")] == []


# ---- the same bytes --------------------------------------------------------------------------------------------


def _folder(at: Path) -> str:
    for name in ("a", "b", "deep/er/c", "deep/d e+f#%41ü"):
        make_video(at / f"{name}.mp4", 0.25)
        (at / f"{name}.txt").write_text(f"caption of {name}", encoding="utf-8")
    (at / "deep" / "notes.md").write_text("not a clip")
    return ""


def _manifest(at: Path) -> str:
    captioned_spans(at / "lists", 5)
    make_video(at / "other" / "b.mp4", 0.25)
    rows = (at / "lists" / "clips.csv").read_text().splitlines()
    (at / "lists" / "clips.csv").write_text("\n".join([*rows, "../other/b.mp4,,,caption of another"]) + "\n")
    return "lists/clips.csv"


def _tar(at: Path) -> str:
    at.mkdir(parents=True)
    with tarfile.open(at / "clips.tar", "w") as tar:
        for name in "abc":
            video = make_video(at.parent / "made" / f"{name}.mp4", 0.25).read_bytes()
            for suffix, data in (("mp4", video), ("txt", f"caption of {name}".encode())):
                info = tarfile.TarInfo(f"{name}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return "clips.tar"


@pytest.mark.parametrize("make", [_folder, _manifest, _tar])
def test_the_dataset_is_the_same_as_on_disk(tmp_path: Path, bucket: Bucket, scratch: Path, make: object) -> None:
    path = make(tmp_path / "in")  # type: ignore[operator]
    bucket.upload(tmp_path / "in", "some/where")
    local = build_inline(tmp_path / "in" / path, tmp_path / "out", SMALL)
    remote = build_inline(bucket.uri(f"some/where/{path}".rstrip("/")), bucket.uri("made/here"), SMALL)
    assert remote.outcomes == local.outcomes == (("kept", "", local.planned),)
    assert_same_dataset(tmp_path / "out", bucket.uri("made/here"))
    assert_conserved(bucket.uri("made/here"))
    assert [file for file in scratch.iterdir() if not file.name.startswith("pymp-")] == []


def test_a_whole_bucket_is_refused_unless_an_older_version_filled_it(film: tuple[Path, Path], bucket: Bucket) -> None:
    flags = ("--source", str(film[0]), *SMALL_FLAGS, "--out")
    for uri in (bucket.uri(), f"s3://{bucket.name}/{bucket.query}"):
        refused = _invoke(*flags, uri)
        assert refused.exit_code == 2
        assert f"is a whole bucket; name a prefix in it, such as s3://{bucket.name}/nsp\n" in refused.output
    assert bucket.at().files(recursive=True) == []
    for path in ("config.toml", "plan.parquet"):
        bucket.at().write(path, (film[1] / path).read_bytes())
    build_inline(film[0], bucket.uri(), SMALL)
    assert_same_dataset(film[1], bucket.uri())
    assert_conserved(bucket.uri())


def test_a_prefix_of_others_is_refused_and_stays_as_it_is(film: tuple[Path, Path], bucket: Bucket) -> None:
    theirs = {"index/val.parquet": b"x", "wids-val.json": b"{}", "a.mp4": b"x", "deep/.x.0123abcd.unfinished": b"x"}
    for path, data in theirs.items():
        bucket.at("theirs").write(path, data)
    bucket.at("marked").write("nextscene.json", b'{"kind": "run", "version": 1}')
    before = bucket.at().files(recursive=True)
    for out in ("theirs", "theirs/deep", "marked", "theirs/a.mp4"):
        for source in (str(film[0]), bucket.uri("theirs")):
            refused = _invoke("--source", source, "--out", bucket.uri(out), *SMALL_FLAGS)
            assert refused.exit_code == 2 and f"--out s3://{bucket.name}/{out}" in refused.output
    assert bucket.at().files(recursive=True) == before


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("src", "lies inside --source"),
        ("src/", "lies inside --source"),
        ("src/out", "lies inside --source"),
        ("/src", "has an empty part"),
        ("src//out", "has an empty part"),
    ],
)
def test_out_is_told_from_the_source_however_it_is_spelled(bucket: Bucket, out: str, said: str) -> None:
    bucket.at("src").write("a.mp4", b"x")
    bucket.at("src").write("nextscene.json", b'{"kind": "dataset", "version": 1}')
    told = _invoke("--source", bucket.uri("src"), "--out", bucket.uri(out), *SMALL_FLAGS)
    assert told.exit_code == 2 and said in told.output, told.output
    assert [entry.path for entry in bucket.at().files(recursive=True)] == ["src/a.mp4", "src/nextscene.json"]


@pytest.mark.parametrize("out", ["../{other}/x", "a/../other", "./x", "a/%2e%2e/x", ".."])
def test_an_address_that_leads_up_is_refused(bucket: Bucket, film: tuple[Path, Path], out: str) -> None:
    """The store would take `..` for a name, and what reads from it for the folder above."""
    other = _new_bucket(bucket.port)
    for flags in (["--source", str(film[0]), "--out"], ["--out", bucket.uri("x"), "--source"]):
        told = _invoke(*flags, bucket.uri(out.format(other=other.name)), *SMALL_FLAGS)
        assert told.exit_code == 2 and "has a part that is `.` or `..`" in told.output
        assert told.output.count("\n") == 1 and bucket.query not in told.output
    assert bucket.at().files(recursive=True) == other.at().files(recursive=True) == []


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_endpoint_may_come_from_the_environment(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # Where a storage is, is remembered by its URI: without a query that must be one of this test's own.
    monkeypatch.setenv(name, f"http://127.0.0.1:{bucket.port}")
    manifest = captioned_spans(tmp_path, 2)
    build_inline(manifest, f"s3://{bucket.name}/{name}", SMALL)
    build_inline(manifest, tmp_path / "out", SMALL)
    assert_same_dataset(tmp_path / "out", bucket.uri(name))


# ---- what object stores do not have ----------------------------------------------------------------------------


def test_a_source_that_is_not_there_is_a_mistake_and_an_empty_one_too(bucket: Bucket, tmp_path: Path) -> None:
    for source in (bucket.uri("nothing"), bucket.uri("no/thing.csv"), Bucket("no-such-bucket", bucket.port).uri("a")):
        with pytest.raises(UsageError, match="no such file or folder"):
            build_inline(source, tmp_path / "out", SMALL)
    _filesystem(bucket.port).create_dir(f"{bucket.name}/empty")  # an object "empty/", as consoles make it
    for source in (bucket.uri("empty"), bucket.uri()):
        with pytest.raises(UsageError, match="no videos or images"):
            build_inline(source, tmp_path / "out", SMALL)


def test_an_out_without_its_bucket_stops_the_run_before_any_work(film: tuple[Path, Path], bucket: Bucket) -> None:
    with pytest.raises(StorageFault, match="bucket does not exist"):
        build_inline(film[0], Bucket("no-such-bucket", bucket.port).uri("out"), SMALL)


def test_a_lock_keeps_a_second_run_out_and_goes_with_its_holder(bucket: Bucket) -> None:
    out = bucket.at("out")
    with hold_lock(out, "one"), pytest.raises(RunStopped, match="is at work there"), hold_lock(bucket.at("out"), "two"):
        pass
    assert holder(out) is None
    assert out.create("mine", b"mine")
    assert not out.create("mine", b"yours")
    assert out.read("mine") == b"mine"


def test_files_lists_what_a_folder_holds_and_nothing_where_there_is_none(bucket: Bucket) -> None:
    out = bucket.at("out")
    assert out.files("ledger/units") == []
    assert out.files(recursive=True) == []
    assert not out.is_folder()
    for path in ("ledger/units/b", "ledger/units/a", "ledger/train/000/c"):
        out.write(path, b"1")
    assert [entry.path for entry in out.files("ledger/units")] == ["ledger/units/a", "ledger/units/b"]
    assert len(out.files("ledger", recursive=True)) == 3
    assert sorted(out.names("ledger")) == ["train/", "units/"]
    out.delete("ledger/units/a")
    out.delete("ledger/units/a")
    out.delete("ledger/units/b")
    assert out.files("ledger/units") == []


def test_a_lost_or_changed_object_fails_alone_and_a_lost_bucket_stops_the_run(
    tmp_path: Path, bucket: Bucket, server: int
) -> None:
    for name in ("gone/a", "kept/b", "new/c"):
        make_video(tmp_path / "in" / f"{name}.mp4", 0.25)
    rows = [{"video": f"in/{name}.mp4", "caption": name} for name in ("gone/a", "kept/b", "new/c")]
    write_csv(tmp_path / "clips.csv", rows)
    bucket.upload(tmp_path / "in", "src/in")
    bucket.at("src").write("clips.csv", (tmp_path / "clips.csv").read_bytes())
    out = tmp_path / "out"
    _plan_only(bucket.uri("src/clips.csv"), out)
    # As other clients delete: with the last object of a "folder" the folder is gone too.
    boto3.client("s3", endpoint_url=f"http://127.0.0.1:{server}").delete_object(
        Bucket=bucket.name, Key="src/in/gone/a.mp4"
    )
    bucket.at("src").write("in/new/c.mp4", b"another file")
    build_inline(bucket.uri("src/clips.csv"), out, SMALL)
    assert [(row.outcome, row.reason) for row in ledger(out)] == [
        ("failed", "source_changed"),
        ("kept", ""),
        ("failed", "source_changed"),
    ]
    assert_conserved(out)

    other = _new_bucket(server)
    other.upload(tmp_path / "in", "src/in")
    manifest = write_csv(tmp_path / "far.csv", [{**row, "video": other.uri(f"src/{row['video']}")} for row in rows])
    _plan_only(manifest, tmp_path / "out2")
    _filesystem(server).delete_dir(other.name)
    with pytest.raises(StorageFault):
        build_inline(manifest, tmp_path / "out2", SMALL)
    assert ledger(tmp_path / "out2") == []


def _plan_only(source: Path | str, out: Path) -> None:
    from nextscene.curation.run.prepare import prepare
    from nextscene.curation.sources import Source

    prepare(Storage.at(out), Source.at(str(source)), SMALL)


# ---- the other commands ----------------------------------------------------------------------------------------


def _invoke(*flags: str) -> Result:
    result = CliRunner().invoke(main, flags)
    assert SECRET not in result.output
    assert TOKEN not in result.output
    return result


def test_verify_status_and_retry_work_there(tmp_path: Path, bucket: Bucket) -> None:
    """Two of four videos come late; a retry takes them in, on disk and in the store alike."""
    source, out = bucket.at("src"), bucket.uri("out")
    rows = [{"video": f"{name}.mp4", "caption": f"caption of {name}"} for name in "abcd"]
    manifest = write_csv(tmp_path / "in" / "clips.csv", rows)
    for name in "ac":
        make_video(tmp_path / "in" / f"{name}.mp4", 0.25)
    bucket.upload(tmp_path / "in", "src")
    for clips, result in ((manifest, tmp_path / "out"), (bucket.uri("src/clips.csv"), out)):
        assert build_inline(clips, result, SMALL).outcomes == (("kept", "", 2), ("absent", "no_file", 2))
    assert _invoke("--out", out, "--verify").exit_code == 0
    asked = _invoke("--out", out, "--status")
    assert asked.exit_code == 0
    assert "4 of 4 decided" in asked.output
    assert "1 of 1 sealed" in asked.output

    for name in "bd":
        source.write(f"{name}.mp4", make_video(tmp_path / "in" / f"{name}.mp4", 0.25).read_bytes())
    absent = frozenset({"absent"})
    for clips, result in ((manifest, tmp_path / "out"), (bucket.uri("src/clips.csv"), out)):
        assert build_inline(clips, result, SMALL, absent).outcomes == (("kept", "", 4),)
    assert_same_dataset(tmp_path / "out", out)
    assert_conserved(out)
    assert [entry.path for entry in bucket.at("out").files("shards", recursive=True)] == [
        f"shards/train/000/nsp-000000-r1.{end}" for end in ("receipt.json", "tar", "tar.idx")
    ]

    bucket.at("out").delete("shards/train/000/nsp-000000-r1.tar")
    damaged = _invoke("--out", out, "--verify")
    assert damaged.exit_code == 1
    assert "nsp-000000-r1" in damaged.output
    absent = _invoke("--out", bucket.uri("elsewhere"), "--verify")
    assert absent.exit_code == 2
    assert "holds no dataset" in absent.output


@pytest.mark.parametrize("place", [f"s3://KEY:{SECRET}@b/x", f"s3://KEY:{SECRET}/x@b/x", f"s3://KEY:/{SECRET}@b/x"])
@pytest.mark.parametrize("flag", ["--out", "--source"])
def test_a_credential_in_a_location_is_refused_and_not_repeated(tmp_path: Path, place: str, flag: str) -> None:
    places = {"--source": str(tmp_path), "--out": str(tmp_path / "out")} | {flag: place}
    result = _invoke(*[word for pair in places.items() for word in pair])
    assert result.exit_code == 2
    assert "environment" in result.output


def test_a_bucket_that_cannot_be_found_just_now_is_a_fault_and_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an endpoint and a region in the URI, AWS itself is asked where the bucket is, also by each worker."""

    class Offline:
        @staticmethod
        def from_uri(uri: str) -> None:
            raise OSError(
                "When resolving region for bucket 'b': AWS Error NETWORK_CONNECTION during HeadBucket operation"
            )

    monkeypatch.setattr(filesystem.pafs, "FileSystem", Offline)
    monkeypatch.setattr(filesystem, "stop_after_attempt", lambda tries: stop_after_attempt(1))
    with pytest.raises(StorageFault, match=r"cannot reach .* When resolving region"):
        Storage.at("s3://a-bucket-of-this-test/x")


# ---- the real command, on Ray, over a network that fails -------------------------------------------------------


class Gate:
    """A door before the server that can be shut, or answer every request with an expired credential."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self.port = 0
        self.expired = False
        self._open: set[socket.socket] = set()
        self.open()

    def open(self) -> None:
        self.expired = False
        gate = self

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 64

            def finish_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
                with suppress(OSError):
                    gate._serve(request)

        self._server = Server(("127.0.0.1", self.port), BaseHTTPRequestHandler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def shut(self) -> None:
        """Nobody listens any more, and what was under way is cut off."""
        self._server.shutdown()
        self._server.server_close()
        self._cut()

    def expire(self) -> None:
        self.expired = True
        self._cut()

    def _cut(self) -> None:
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _serve(self, client: socket.socket) -> None:
        self._open.add(client)
        try:
            if self.expired:
                _Expired(client, ("127.0.0.1", 0), self._server)
                return
            with socket.create_connection(("127.0.0.1", self._upstream)) as server:
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server)
                back.join()
        finally:
            self._open.discard(client)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class _Expired(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
        body = b"" if self.command == "HEAD" else said
        self.send_response(403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def gate(server: int) -> Iterator[Gate]:
    gate = Gate(server)
    yield gate
    gate.shut()


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as here:
        yield here


class OnS3:
    """The film in the bucket, the command that builds it there, and every word it said."""

    def __init__(self, film: tuple[Path, Path], bucket: Bucket, here: Place, port: int) -> None:
        self.local, self.bucket, self.here = film[1], bucket, here
        bucket.upload(film[0].parent, "in")
        seen = bucket.through(port)
        self.flags = ["--source", seen.uri("in/clips.csv"), "--out", seen.uri("out"), *SMALL_FLAGS, "--workers", "2"]
        self.out = bucket.uri("out")

    def begun(self) -> bool:
        """Whether a unit has been committed."""
        return bool(self.bucket.at("out").files("ledger", recursive=True))

    def outcomes(self) -> set[str]:
        return {row.outcome for row in ledger(self.out)}

    def check_finished(self, ended: Ended) -> None:
        assert ended.code == 0, ended.stderr
        assert_same_dataset(self.local, self.out)
        assert_conserved(self.out)
        assert self.bucket.at("out").files("parts", recursive=True) == []
        assert holder(self.bucket.at("out")) is None

    def check_no_secret(self, *ends: Ended) -> None:
        """In nothing that is published or said. What Ray logged is gone with its folder."""
        assert list(self.here.root.glob("ns-ray-*")) == []
        texts = [text.encode() for ended in ends for text in (ended.stdout, ended.stderr)]
        out = self.bucket.at("out")
        texts += [out.read(entry.path) for entry in out.files(recursive=True)]
        assert len(texts) > 10
        assert not [text for text in texts if SECRET.encode() in text or TOKEN.encode() in text]


def test_a_killed_run_goes_on_and_ends_as_on_disk(film: tuple[Path, Path], bucket: Bucket, here: Place) -> None:
    s3 = OnS3(film, bucket, here, bucket.port)
    with here.start_build(*s3.flags) as run:
        run.until(s3.begun)
        run.send_group(signal.SIGKILL)
        killed = run.wait()
        assert run.left_behind() == []
    assert killed.code == -signal.SIGKILL
    assert len(ledger(s3.out)) < SPANS
    resumed = here.build(*s3.flags)
    s3.check_finished(resumed)
    s3.check_no_secret(killed, resumed)


def test_a_server_that_goes_away_and_a_credential_that_expires_fail_no_clip(
    film: tuple[Path, Path], bucket: Bucket, here: Place, gate: Gate
) -> None:
    """Both stop the run with one line and exit code 3; the same command continues to the same dataset."""
    s3 = OnS3(film, bucket, here, gate.port)
    ends = []
    impatient = fault_injection(TRIES="1")
    with here.start_build(*s3.flags, env=impatient) as run:
        run.until(s3.begun)
        gate.expire()
        ends.append(run.wait())
        assert run.left_behind() == []
    assert ends[-1].code == 3, ends[-1].stderr
    assert "ACCESS_DENIED" in ends[-1].error or "ExpiredToken" in ends[-1].error
    assert not any(words in ends[-1].error for words in ("was taken", "is gone", "is damaged"))  # of its lock
    assert s3.outcomes() == {"kept"}
    assert len(ledger(s3.out)) < SPANS

    ends.append(here.build(*s3.flags, env=impatient))  # not even the lock can be looked at
    assert ends[-1].code == 3, ends[-1].stderr
    assert "s3://" in ends[-1].error

    gate.shut()
    gate.open()
    before = len(ledger(s3.out))
    with here.start_build(*s3.flags, env=impatient) as run:
        run.until(lambda: decided(s3.out) > before)
        gate.shut()
        ends.append(run.wait())
        assert run.left_behind() == []
    assert ends[-1].code == 3, ends[-1].stderr
    assert "connect" in ends[-1].error
    assert s3.outcomes() == {"kept"}
    assert before < len(ledger(s3.out)) < SPANS

    gate.open()
    ends.append(here.build(*s3.flags))
    s3.check_finished(ends[-1])
    s3.check_no_secret(*ends)


def test_a_prefix_that_was_deleted_is_told_before_a_run_is_concluded(bucket: Bucket) -> None:
    out = bucket.at("out").with_anchor("mark")
    out.write("mark", b"")
    out.check_anchor(remotely=True)
    out.delete("mark")
    with pytest.raises(StorageFault, match="its mark was deleted"):
        out.check_anchor(remotely=True)

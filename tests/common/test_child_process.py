"""What a decoder may do to a run: nothing. Its clip ends, with the evidence, and the others continue."""

from __future__ import annotations

import http.server
import shutil
import stat
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from nextscene.common import ffmpeg
from nextscene.common.storage import StorageFault
from nextscene.curation.config import BuildConfig, RunLimits
from nextscene.curation.media.probe import Measured, NoVideo, UnreadableFile, measure
from nextscene.curation.media.seek import Span
from nextscene.curation.outcome import ClipOutcome
from nextscene.curation.stages.cut import Cut, cut
from tests.support import (
    SMALL,
    assert_conserved,
    assert_same_dataset,
    build_inline,
    ledger,
    make_video,
    run_ffmpeg,
    write_csv,
)

pytestmark = pytest.mark.slow

MEASURED = Measured(False, 854, 480, 0.25, "AVC")


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    make_video(folder / "a.mp4", 0.25)
    return folder


@pytest.fixture
def source(footage: Path, tmp_path: Path) -> Path:
    """Two clips of one unit."""
    shutil.copytree(footage, tmp_path / "in", copy_function=shutil.copy2)
    rows = [{"video": "a.mp4", "id": name, "caption": f"caption {name}"} for name in ("bad", "good")]
    return write_csv(tmp_path / "in" / "clips.csv", rows)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a stand-in for ffmpeg, whose `body` a test writes. The build is told before, by the real one."""
    ffmpeg.build()
    folder = tmp_path / "fake"
    folder.mkdir()
    monkeypatch.setattr(ffmpeg, "executable", lambda: str(folder / "ffmpeg"))
    return folder


def behave(folder: Path, body: str) -> None:
    """A program in Python; `times` counts its runs, `real()` becomes the real ffmpeg."""
    real = ffmpeg.imageio_ffmpeg.get_ffmpeg_exe()
    (folder / "ffmpeg").write_text(
        f"#!{sys.executable} -S\n"
        "import os, pathlib, signal, subprocess, sys, time\n"
        f"folder = pathlib.Path({str(folder)!r})\n"
        "with (folder / 'runs').open('a') as runs: runs.write(f'{os.getpid()}\\n')\n"
        "times = len((folder / 'runs').read_text().splitlines())\n"
        f"def real(): os.execv({real!r}, [{real!r}, *sys.argv[1:]])\n"
        f"{body}\n"
    )
    (folder / "ffmpeg").chmod(0o755)


def test_signals_of_a_scheduler_to_all_processes_do_not_fail_a_clip(source: Path, tmp_path: Path, fake: Path) -> None:
    """They are for the run to answer: ffmpeg would end in the middle of the clip, and its file be blamed for it."""
    behave(
        fake,
        "for name in 'TERM HUP INT USR1 QUIT'.split(): os.kill(os.getpid(), getattr(signal, f'SIG{name}'))\nreal()",
    )
    build_inline(source, tmp_path / "out", SMALL)
    assert [row.outcome for row in ledger(tmp_path / "out")] == ["kept", "kept"]


def pids(folder: Path) -> list[int]:
    return [int(line) for name in ("runs", "children") if (folder / name).exists() for line in (folder / name).open()]


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def build(source: Path, tmp_path: Path, config: BuildConfig = SMALL) -> list[str]:
    """Each clip's end, as "outcome reason: detail"."""
    build_inline(source, tmp_path / "out", config)
    assert_conserved(tmp_path / "out", config)
    return [f"{row.outcome} {row.reason}: {row.detail}" for row in ledger(tmp_path / "out", config)]


def limited(**limits: float) -> BuildConfig:
    return replace(SMALL, limits=RunLimits(**{"clip_seconds": 30.0, "clip_memory_mb": 4096} | limits))  # type: ignore[arg-type]


# ---- stand-ins for ffmpeg --------------------------------------------------------------------------------------


def test_one_that_hangs_is_ended_in_time_with_all_that_it_started(source: Path, fake: Path, tmp_path: Path) -> None:
    child = "child = subprocess.Popen(['sleep', '600'])\nprint('half done', file=sys.stderr, flush=True)\n"
    note = "with (folder / 'children').open('a') as file: file.write(f'{child.pid}\\n')\n"
    behave(fake, f"if times > 1: real()\n{child}{note}time.sleep(600)")
    begun = time.monotonic()
    bad, good = build(source, tmp_path, limited(clip_seconds=2.0))
    assert bad == "failed cut_timeout: ffmpeg not done in 2 s: half done"
    assert good == "kept : "
    assert time.monotonic() - begun < 20
    assert len(pids(fake)) == 3 and not any(map(runs, pids(fake)))


def test_one_that_ignores_every_polite_signal_is_ended_too(source: Path, fake: Path, tmp_path: Path) -> None:
    ignore = "for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(one, signal.SIG_IGN)"
    behave(fake, f"if times > 1: real()\n{ignore}\nwhile True: time.sleep(600)")
    assert build(source, tmp_path, limited(clip_seconds=1.0))[0].startswith("failed cut_timeout")
    assert not any(map(runs, pids(fake)))


def test_what_it_starts_and_leaves_behind_is_ended_with_it(source: Path, fake: Path, tmp_path: Path) -> None:
    child = "child = subprocess.Popen(['sleep', '600'])\n"
    note = "with (folder / 'children').open('a') as file: file.write(f'{child.pid}\\n')\n"
    behave(fake, f"{child}{note}real()")
    assert build(source, tmp_path) == ["kept : ", "kept : "]
    assert len(pids(fake)) == 4 and not any(map(runs, pids(fake)))


def test_one_that_is_killed_once_gets_another_chance(source: Path, fake: Path, tmp_path: Path) -> None:
    behave(fake, "if times == 1: os.kill(os.getpid(), signal.SIGKILL)\nreal()")
    assert build(source, tmp_path) == ["kept : ", "kept : "]
    assert len(pids(fake)) == 3


def test_a_clip_cut_at_the_second_try_has_the_same_bytes(source: Path, fake: Path, tmp_path: Path) -> None:
    behave(fake, "real()")
    build_inline(source, tmp_path / "plain", SMALL)
    (fake / "runs").unlink()
    behave(fake, "if times == 1: os.kill(os.getpid(), signal.SIGKILL)\nreal()")
    build_inline(source, tmp_path / "again", SMALL)
    assert_conserved(tmp_path / "again")
    assert_same_dataset(tmp_path / "plain", tmp_path / "again")


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_one_that_always_crashes_fails_its_clip_with_the_signal(
    source: Path, fake: Path, tmp_path: Path, name: str
) -> None:
    behave(
        fake,
        f"if times > 3: real()\nprint('at work', file=sys.stderr, flush=True)\nos.kill(os.getpid(), signal.{name})",
    )
    bad, good = build(source, tmp_path)
    assert bad == f"failed cut_crashed: ffmpeg died of {name}: at work"
    assert good == "kept : "


def test_one_that_ends_with_an_error_fails_its_clip_with_its_last_words(
    source: Path, fake: Path, tmp_path: Path
) -> None:
    behave(fake, "if times > 1: real()\nprint('first\\nInvalid data found\\n', file=sys.stderr)\nsys.exit(187)")
    assert build(source, tmp_path) == ["failed cut_error: ffmpeg ended with status 187: Invalid data found", "kept : "]
    assert len(pids(fake)) == 2


def test_one_that_fails_in_silence_and_one_that_talks_without_end(source: Path, fake: Path, tmp_path: Path) -> None:
    behave(fake, "if times == 1: sys.exit(1)\nsys.stderr.write('x' * 5_000_000 + '\\nthe end\\xff')\nsys.exit(2)")
    silent, talker = build(source, tmp_path)
    assert silent == "failed cut_error: ffmpeg ended with status 1: no message"
    assert talker.startswith("failed cut_error: ffmpeg ended with status 2: the end") and len(talker) < 200


@pytest.mark.parametrize("body", ["pass", "pathlib.Path(sys.argv[-2][5:]).write_bytes(b'no video')"])
def test_one_that_says_it_is_done_and_made_no_video_fails_its_clip(
    source: Path, fake: Path, tmp_path: Path, body: str
) -> None:
    behave(fake, f"if times > 1: real()\n{body}")
    bad, good = build(source, tmp_path)
    assert bad == "failed short_decode: no frame was decoded, the span begins at 0.000 s" and good == "kept : "


def test_a_full_scratch_disk_is_no_clip_s_fault(source: Path, fake: Path, tmp_path: Path, scratch: Path) -> None:
    behave(fake, "print('x.mp4: No space left on device', file=sys.stderr)\nsys.exit(1)")
    with pytest.raises(StorageFault, match="no space left in the scratch folder"):
        build_inline(source, tmp_path / "out", SMALL)
    assert ledger(tmp_path / "out") == [] and list(scratch.iterdir()) == []
    behave(fake, "real()")
    assert build(source, tmp_path) == ["kept : ", "kept : "]


def test_no_input_of_ours_reaches_it(source: Path, fake: Path, tmp_path: Path) -> None:
    behave(fake, "if sys.stdin.read(): sys.exit(9)\nreal()")
    assert build(source, tmp_path) == ["kept : ", "kept : "]


# ---- hostile files ---------------------------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A video that no clip names. Its frames must not come out."""
    run_ffmpeg(
        "-i", str(make_video(tmp_path / "secret" / "plain.mp4", 1.0)), "-c", "copy", str(tmp_path / "secret" / "x.ts")
    )
    return tmp_path / "secret" / "x.ts"


@pytest.fixture
def web() -> Iterator[tuple[str, list[str]]]:
    """A server on this machine: its address, and what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/x.ts", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("encoding", "mark"), [("utf-8", ""), ("utf-8", "\ufeff"), ("utf-8", "\n "), ("utf-16", "")])
@pytest.mark.parametrize("rest", ["", "#\0\x01\n"])
@pytest.mark.parametrize(
    "kind", ["an HLS playlist", "a DASH manifest", "an ffconcat script", "a relative HLS playlist"]
)
def test_no_file_sends_the_screen_or_the_cut_into_the_network(
    tmp_path: Path, web: tuple[str, list[str]], kind: str, encoding: str, mark: str, rest: str
) -> None:
    url, asked = web
    text = hostile(Path("/secret/x.ts"))[kind]
    for path in ("file:///secret/x.ts", "/secret/x.ts", "/secret/plain.mp4", "../secret/x.ts"):
        text = text.replace(path, url)
    assert url in text
    path = tmp_path / "a.mp4"
    path.write_text(mark + text.replace("\n", f"\n{rest}", 1), encoding=encoding)
    with path.open("rb") as file, pytest.raises((UnreadableFile, NoVideo)):
        measure(file)
    assert isinstance(cut(path, Span(0.0, None), MEASURED, SMALL, tmp_path), ClipOutcome)
    assert asked == []


def hostile(secret: Path) -> dict[str, str]:
    playlist = f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    return {
        "an HLS playlist": playlist,
        "a relative HLS playlist": playlist.replace(f"file://{secret}", "../secret/x.ts"),
        "an HLS playlist of concat": playlist.replace("file://", "concat:"),
        "an ffconcat script": f"ffconcat version 1.0\nfile {secret}\n",
        "a relative ffconcat script": "ffconcat version 1.0\nfile ../secret/x.ts\n",
        "a DASH manifest": (
            '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
            'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
            f'width="854" height="480" codecs="avc1.64001f"><BaseURL>{secret.with_name("plain.mp4")}</BaseURL>'
            "<SegmentBase/></Representation></AdaptationSet></Period></MPD>"
        ),
        "an SDP description": "v=0\nm=video 5004 RTP/AVP 96\nc=IN IP4 127.0.0.1\na=rtpmap:96 H264/90000\n",
        "a list of pictures": "%03d.png\n",
    }


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        *((kind, "mp4") for kind in sorted(hostile(Path("x")))),
        *((kind, suffix) for kind in ("an HLS playlist", "an ffconcat script") for suffix in ("mkv", "ts", "mpg")),
    ],
)
def test_a_script_that_names_another_file_gives_none_of_its_frames(
    tmp_path: Path, secret: Path, kind: str, suffix: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"a.{suffix}").write_text(hostile(secret)[kind])
    (tmp_path / "in" / "a.txt").write_text("caption")
    (end,) = build(tmp_path / "in", tmp_path)
    assert end.split()[0] in ("rejected", "failed"), end
    assert not list((tmp_path / "out").rglob("*.tar"))


@pytest.mark.parametrize("kind", sorted(hostile(Path("x"))))
@pytest.mark.parametrize("is_image", [False, True])
def test_the_cut_itself_would_not_follow_it_either(tmp_path: Path, secret: Path, kind: str, is_image: bool) -> None:
    """As if the screen had been deceived by headers that say: a video."""
    path = tmp_path / "in" / "a.mp4"
    path.parent.mkdir()
    path.write_text(hostile(secret)[kind])
    measured = replace(MEASURED, is_image=is_image, codec="PNG" if is_image else "AVC")
    assert isinstance(cut(path, Span(0.0, None), measured, SMALL, tmp_path), ClipOutcome)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\nx.ts\n#EXT-X-ENDLIST\n"),
        ("a.mp4", "ffconcat version 1.0\nfile x.ts\n"),
    ],
)
def test_a_script_beside_the_file_it_names_gives_none_of_its_frames(secret: Path, name: str, text: str) -> None:
    """What ffmpeg by itself takes for safe, and would show."""
    path = secret.with_name(name)
    path.write_text(text)
    run_ffmpeg("-i", str(path), "-frames:v", "1", str(secret.with_name("shown.png")))
    assert secret.with_name("shown.png").exists()
    outcome = cut(path, Span(0.0, None), MEASURED, SMALL, secret.parent)
    assert outcome == ClipOutcome(
        "rejected", "unreadable", "Invalid argument"
    )  # not one of the containers that are allowed


def test_a_description_of_a_broadcast_is_not_listened_to(tmp_path: Path) -> None:
    """A byte that no text has, in a line that means nothing, makes it look less like one."""
    for name, line in (("plain", ""), ("odd", "s=\x01\n")):
        path = tmp_path / f"{name}.mp4"
        path.write_text(hostile(path)["an SDP description"].replace("m=video", f"{line}m=video"))
        begun = time.monotonic()
        with path.open("rb") as file, pytest.raises(UnreadableFile):
            measure(file)
        assert time.monotonic() - begun < 3


def test_a_file_name_is_never_taken_for_a_pattern_or_a_protocol(tmp_path: Path) -> None:
    """`%03d`, `*` and `:` mean something to ffmpeg elsewhere on its command line."""
    for name in ("a%03d.mp4", "a*?.mp4", "concat:b|c.mp4", "-y.mp4", "a'b\"c;d.mp4", "a\\b.mp4", "pipe:0.mp4"):
        made = make_video(tmp_path / "plain.mp4", 0.25)
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        made.rename(path)
        path.with_suffix(".txt").write_text(f"caption {name}")
    assert build(tmp_path / "in", tmp_path) == ["kept : "] * 7


# ---- bounds ----------------------------------------------------------------------------------------------------


def test_a_clip_that_needs_more_memory_than_allowed_fails_alone(tmp_path: Path) -> None:
    make_video(tmp_path / "in" / "a.mp4", 0.25, "3840x2160")
    (tmp_path / "in" / "a.txt").write_text("caption")
    (end,) = build(tmp_path / "in", tmp_path, limited(clip_memory_mb=160))
    assert end.startswith(("failed cut_error", "failed cut_crashed")), end
    assert isinstance(end, str) and "ffmpeg" in end


def test_with_memory_for_nothing_at_all_every_clip_fails_and_the_run_ends(source: Path, tmp_path: Path) -> None:
    ends = build(source, tmp_path, limited(clip_memory_mb=1))
    assert all(end.startswith("failed cut_") for end in ends), ends


def test_a_program_that_does_not_start_stops_the_run_and_is_no_clips_fault(
    source: Path, fake: Path, tmp_path: Path
) -> None:
    behave(fake, "real()")
    (fake / "ffmpeg").chmod(stat.S_IRUSR)
    with pytest.raises(StorageFault, match="ermission denied"):
        build(source, tmp_path)


def test_a_cut_within_its_bounds_is_a_cut(footage: Path, tmp_path: Path) -> None:
    made = cut(footage / "a.mp4", Span(0.0, None), MEASURED, SMALL, tmp_path)
    assert isinstance(made, Cut) and made.frames == 4

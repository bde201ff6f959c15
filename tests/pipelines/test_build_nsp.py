"""The real command on a Ray of its own: any number of workers, interrupts, and clips that kill or hang a worker."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from nextscene.common.storage import Storage
from nextscene.shards.format.layout import UnitName
from nextscene.shards.format.manifest import Manifest
from tests.command import SMALL_FLAGS, Place, fault_injection
from tests.support import (
    SMALL,
    assert_conserved,
    assert_same_dataset,
    build_inline,
    captioned_spans,
    decided,
    ledger,
    make_video,
)

pytestmark = pytest.mark.slow

SPANS = 12


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A captioned film, and the dataset made of it without Ray."""
    folder = tmp_path_factory.mktemp("film")
    manifest = captioned_spans(folder / "in", SPANS)
    build_inline(manifest, folder / "out", SMALL)
    return manifest, folder / "out"


def _flags(source: Path, out: Path, *more: str) -> list[str]:
    return ["--source", str(source), "--out", str(out), *SMALL_FLAGS, *more]


def _wrote_home(here: Place) -> list[Path]:
    """All but the fonts that the plotting library looks up once."""
    files = (path for path in here.home.rglob("*") if path.is_file())
    return sorted(path for path in files if path.parent.name != "matplotlib")


def _of_ray(folder: Path) -> list[Path]:
    """The folders of Ray's sessions, ours and those that Ray would make itself."""
    return sorted([*folder.glob("ns-ray-*"), *folder.glob("ray")])


def _is_loopback(host: str) -> bool:
    return ip_address(host.removeprefix("::ffff:")).is_loopback


def test_one_worker_makes_the_dataset_and_a_second_call_finds_nothing_to_do(
    film: tuple[Path, Path], here: Place, tmp_path: Path
) -> None:
    flags = _flags(film[0], tmp_path / "out", "--workers", "1")
    with here.start_build(*flags) as run:
        run.until(lambda: bool(Storage.at(tmp_path / "out").files("ledger", recursive=True)))
        listening = run.listening()
        first = run.wait()
        assert run.left_behind() == []
    assert first.code == 0, first.stderr
    assert len(listening) > 5  # Ray's servers, its agents, its workers and the driver
    assert {host for host in listening if not _is_loopback(host)} == set()
    assert _of_ray(here.root) == []
    assert f"{SPANS} clips, {SPANS} decided, {SPANS} in shards" in first.stdout
    assert_same_dataset(film[1], tmp_path / "out")
    assert_conserved(tmp_path / "out")
    assert _wrote_home(here) == []  # above all no token, which would close clusters that are started later
    assert list((here.root / "tmp").glob("nextscene-*")) == []

    with here.start_build(*flags, env=fault_injection(NO_RAY="1")) as run:
        again = run.wait()
    assert again.code == 0, again.stderr
    assert again.stdout.startswith("Nothing to do")
    assert again.seconds < 10


def test_two_workers_make_the_same_dataset_as_no_ray_under_judge_film(
    film: tuple[Path, Path], here: Place, tmp_path: Path
) -> None:
    """TMPDIR is where people put scratch on a larger disk. Ray would put its sockets there, whose names are short."""
    config = replace(SMALL, judge="film")
    build_inline(film[0], tmp_path / "inline", config)
    far_away = here.root / "tmp" / ("long" * 20)
    far_away.mkdir()
    flags = _flags(film[0], tmp_path / "out", "--workers", "2", "--judge", "film")
    with here.start_build(*flags, env={"TMPDIR": str(far_away), "RAY_TMPDIR": ""}) as run:
        run.until(lambda: run.runs("raylet"))
        (session,) = {folder for folder in _of_ray(Path("/tmp")) if f"{folder}/" in " ".join(run.command_lines())}
        ended = run.wait()
        assert run.left_behind() == []
    assert not session.exists()
    assert_same_dataset(tmp_path / "inline", tmp_path / "out", config)
    assert_conserved(tmp_path / "out", config)
    assert [row.reason for row in ledger(tmp_path / "out", config) if not row.kept] == ["first_shot"]
    assert "not the method of" in ended.stdout
    assert _wrote_home(here) == []


def test_interrupts_end_a_run_in_order_and_the_same_command_goes_on(here: Place, tmp_path: Path) -> None:
    """As a terminal sends Ctrl-C, to the whole process group; then twice as schedulers end a process.

    So that none is done before that: of seven units of a clip each, the first run cannot finish the second, which is
    left for the third, and neither can finish the last. That is begun after another is done: six are under way at once.
    """
    config = replace(SMALL, unit_size=1)
    source, out = _captioned(tmp_path / "in", "abcdefg"), tmp_path / "out"
    _spoil(source / "b.mp4", b"HOLDS-WORKER")
    _spoil(source / "g.mp4", b"HANGS-WORKER")
    build_inline(source, tmp_path / "inline", config)
    flags = _flags(source, out, "--workers", "2", "--unit-size", "1")
    hanging = fault_injection(LOG=str(tmp_path / "hung"))

    with here.start_build(*flags, env=hanging | fault_injection(HOLD="1")) as run:
        run.until(lambda: bool(Storage.at(out).files("ledger", recursive=True)))
        run.send_group(signal.SIGINT)
        ended = run.wait()
        assert run.left_behind() == []
    assert ended.code == 130, ended.stderr
    assert ended.error == "error: interrupted; all that is decided is kept; run the same command again to continue"
    done = len(ledger(out, config))
    assert 0 < done < 6
    assert not Manifest.read(Storage.at(out)).complete
    assert Storage.at(out).stat("run.lock") is None

    with here.start_build(*flags) as run:
        run.until(lambda: run.runs("raylet"))  # Ray is starting
        run.send(signal.SIGTERM)
        ended = run.wait()
        assert run.left_behind() == []
    assert _of_ray(here.root) == []
    assert ended.code == 3, ended.stderr
    assert ended.error.startswith("error: stopped by SIGTERM;")
    assert len(ledger(out, config)) == done

    with here.start_build(*flags, env=hanging) as run:
        run.until(lambda: decided(out, config) > done)
        for signum in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
            run.send(signum)
        ended = run.wait()
        assert run.left_behind() == []
    assert ended.code == 3, ended.stderr
    assert ended.error.startswith(("error: stopped by SIGUSR1;", "error: stopped by SIGTERM;"))
    assert done < len(ledger(out, config)) < 7
    assert Storage.at(out).stat("run.lock") is None

    ended = here.build(*flags)
    assert ended.code == 0, ended.stderr
    assert_same_dataset(tmp_path / "inline", out, config)
    assert_conserved(out, config)
    assert Storage.at(out).files("parts", recursive=True) == []


def _captioned(folder: Path, names: str) -> Path:
    for name in names:
        make_video(folder / f"{name}.mp4", 0.25)
        (folder / f"{name}.txt").write_text(f"caption of {name}")
    return folder


def _spoil(video: Path, word: bytes) -> None:
    with video.open("ab") as file:
        file.write(word)


def test_a_clip_that_kills_workers_is_quarantined_and_counted_across_drivers(here: Place, tmp_path: Path) -> None:
    """Four videos in two units."""
    source, out, log = _captioned(tmp_path / "in", "abcd"), tmp_path / "out", tmp_path / "deaths"
    _spoil(source / "c.mp4", b"KILLS-WORKER")
    flags = _flags(source, out, "--workers", "2")
    env = fault_injection(LOG=str(log))

    def counted() -> list[int]:
        file = out / UnitName("train", 1).crashes
        return list(json.loads(file.read_text())["clips"].values()) if file.exists() else []

    def deaths() -> int:
        return len(log.read_text().splitlines())

    with here.start_build(*flags, env=env) as run:
        run.until(lambda: bool(counted()))
        run.send_group(signal.SIGKILL)
        run.wait()
    (alone,), before = counted(), deaths()
    assert alone in (1, 2)

    ended = here.build(*flags, env=env)
    assert ended.code == 1, ended.stderr
    assert deaths() - before == 2 - alone  # what the first driver had counted is not done again
    ends = {row.source: (row.outcome, row.reason) for row in ledger(out)}
    assert ends == {f"{name}.mp4": ("kept", "") for name in "abd"} | {"c.mp4": ("quarantined", "kills_worker")}
    assert "--retry quarantined  # 1 kills_worker" in ended.stdout
    assert_conserved(out)
    assert Storage.at(out).files("parts", recursive=True) == []

"""`nextscene fetch-film`: download of the sample film, Big Buck Bunny, from a package on PyPI, and its shot list."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from nextscene.pipelines.cli import startup  # noqa: F401  before all that may be missing, and all that takes its time

# isort: split
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from importlib import resources

import click

from nextscene.common.hashing import path_sha256
from nextscene.common.storage import Storage, StorageFault
from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.command import Command
from nextscene.pipelines.cli.exit_codes import GoOn, handle_errors
from nextscene.pipelines.cli.paths import LocalPath, check_free

_PACKAGE = "moviepy==2.2.1"
_ARCHIVE = "moviepy-2.2.1.tar.gz"
_ARCHIVE_SHA256 = "c80cb56815ece94e5e3e2d361aa40070eeb30a09d23a24c4e684d03e16deacb1"
_ZIP = "moviepy-2.2.1/docs/_static/medias/getting_started/moviepy_10_minutes/moviepy_10_minutes.zip"
_FILM_IN_ZIP = "moviepy_10_minutes/resources/bbb.mp4"
_FILM = "big_buck_bunny.mp4"
_FILM_SHA256 = "475fbbf34c4c367998f80c29ea03b15a743941179b12da3373fc6706e68621d0"
_LIST = "shots.csv"
_SHOTS = resources.files("nextscene.samples") / "big_buck_bunny.csv"


@click.command(cls=Command)
@click.argument("folder", type=LocalPath())
@handle_errors(GoOn("what is in FOLDER is whole"))
def main(folder: Path) -> None:
    """Fetch the sample film and its captioned shot list.

    big_buck_bunny.mp4 and shots.csv go into FOLDER. About 58 MB are downloaded, once. A file of one of these names with
    other contents is not replaced. Big Buck Bunny is (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC-BY 3.0.

    Exit codes: 0 done, 2 wrong usage, 3 no download, or stopped by SIGTERM, SIGHUP or SIGUSR1, 130 by Ctrl-C.
    """
    film, shots = folder / _FILM, folder / _LIST
    try:
        check_free(folder.absolute())
        for file, sha256 in {film: _FILM_SHA256, shots: hashlib.sha256(_SHOTS.read_bytes()).hexdigest()}.items():
            if file.exists() and path_sha256(file) != sha256:
                console.fail(
                    f"{file} is there already, and is not ours; delete it, or name another folder", console.USAGE
                )
        folder.mkdir(parents=True, exist_ok=True)
    except StorageFault as fault:
        console.fail(fault, console.STOPPED)
    except OSError as error:
        console.fail(f"{folder} cannot be used: {error.strerror}; name another folder", console.USAGE)
    if not film.exists():
        console.err.print("fetching the sample film (58 MB) …")
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            _extract(_download(Path(scratch)), Path(scratch) / _FILM).replace(film)
    if not shots.exists():
        Storage.at(folder).write(_LIST, _SHOTS.read_bytes())
    console.out.print(f"{film} and {shots} are there.")


def _download(scratch: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        ":all:",
        "--dest",
        str(scratch),
    ]
    done = subprocess.run([*command, _PACKAGE], capture_output=True, text=True, check=False)
    archive = scratch / _ARCHIVE
    if done.returncode or not archive.exists():
        reason = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        console.fail(f"pip could not download the source archive of {_PACKAGE}; it said: {reason}", console.STOPPED)
    if path_sha256(archive) != _ARCHIVE_SHA256:
        console.fail(f"{_ARCHIVE} is not the file this was made for: another sha256", console.STOPPED)
    return archive


def _extract(archive: Path, film: Path) -> Path:
    with tarfile.open(archive) as tar, tempfile.TemporaryFile() as inner:
        member = tar.extractfile(_ZIP)
        if member is None:
            console.fail(f"{_ARCHIVE} holds no {_ZIP}", console.STOPPED)
        shutil.copyfileobj(member, inner)
        with zipfile.ZipFile(inner) as pack, pack.open(_FILM_IN_ZIP) as source, film.open("wb") as target:
            shutil.copyfileobj(source, target)
    if path_sha256(film) != _FILM_SHA256:
        console.fail("the film in the archive is not the one this was made for: another sha256", console.STOPPED)
    return film


if __name__ == "__main__":
    main()

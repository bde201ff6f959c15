"""fetch_film.py: the shot list comes from the package's data. What is not replaced is in test_out_is_ours.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from nextscene.pipelines import fetch_film
from tests.support import REPOSITORY


def test_the_shot_list_is_that_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = tmp_path / "film" / "big_buck_bunny.mp4"
    film.parent.mkdir()
    film.write_bytes(b"film")
    monkeypatch.setattr(fetch_film, "_FILM_SHA256", fetch_film.path_sha256(film))
    ended = CliRunner().invoke(fetch_film.main, [str(film.parent)])
    assert (ended.exit_code, ended.stderr) == (0, "")
    shots = film.parent / "shots.csv"
    assert shots.read_bytes() == (REPOSITORY / "samples" / "big_buck_bunny.csv").read_bytes()
    assert ended.stdout == f"{film} and {shots} are there.\n"

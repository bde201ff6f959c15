"""A run that ends early leaves shards of what it decided; at the end nobody can tell that it was ever interrupted."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nextscene.common import ffmpeg
from nextscene.common.errors import RunStopped, UsageError
from nextscene.common.storage import Storage
from nextscene.curation.inspect.clip import clip_history
from nextscene.curation.inspect.find import ClipLocation
from nextscene.curation.inspect.open_dataset import OpenDataset
from nextscene.curation.inspect.status import status
from nextscene.curation.plan import Plan
from nextscene.curation.run.existing_plan import has_only_plan
from nextscene.curation.run.prepare import prepare
from nextscene.curation.sealing.committed import CommittedState
from nextscene.curation.sources import Source
from nextscene.curation.stages.describe import DescribedScene
from nextscene.curation.stages.unit import UnitContext, cut_unit, screen_unit
from nextscene.shards.format.layout import CHECKSUMS, ShardName
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.loading.dataset import ClipDataset
from tests.fakes.claude_api import ClaudeApi
from tests.fakes.claude_api.account import GOOD
from tests.fakes.loopback import account, after_answers, judge_budget, reach_spend_limit, spans, stored
from tests.faults.kill_at_step import TINY
from tests.support import assert_conserved, assert_same_clips, build_inline, captioned_spans, ledger, problems

pytestmark = pytest.mark.slow

CONFIG = replace(TINY, unit_size=3, units_per_shard=2)
"""14 clips fill shards of 6, 6 and 2, in units of 3, 3, 3, 3 and 2."""
CLIPS = 14


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return captioned_spans(tmp_path_factory.mktemp("source"), CLIPS, seconds=0.125, size="64x48")


@pytest.fixture(scope="module")
def calm(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of a run that was left alone."""
    out = tmp_path_factory.mktemp("calm") / "out"
    build_inline(source, out, CONFIG)
    return out


def sealed_positions(out: Path) -> list[int]:
    """The positions of the clips whose rows are in sealed shards."""
    state = CommittedState.read(Storage.at(out), CONFIG.units_per_shard)
    assert not state.committed
    return [row.position for row in ledger(out, CONFIG)]


# ---- no more than so many clips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [[1] * CLIPS, [3, 3, 3, 3, 2], [4, 4, 4, 4], [5, 1, 7, 9], [13, 1], [100]])
def test_a_run_in_pieces_makes_what_one_run_makes(source: Path, calm: Path, tmp_path: Path, steps: list[int]) -> None:
    out, done = tmp_path / "out", 0
    for step in steps:
        summary = build_inline(source, out, CONFIG, stop_after=step)
        done = min(CLIPS, done + step)
        assert sealed_positions(out) == [*range(done)]
        assert (summary.decided, summary.samples, summary.complete) == (done, done, done == CLIPS)
        assert not summary.needs_attention()
    assert_same_clips(calm, out, CONFIG)
    assert_conserved(out, CONFIG)


def test_a_partial_shard_is_one_for_readers_and_unfinished_for_all_else(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_inline(source, out, CONFIG, stop_after=8)
    place = Storage.at(out)
    assert len(ClipDataset(str(out), "train")) == 8
    now = status(place, CONFIG)
    assert (now.tally.total, now.shards_sealed, now.shards_partial) == (8, 2, 1)
    manifest = Manifest.read(place)
    assert [shard.count for shard in manifest.shards] == [6, 2]
    assert not manifest.complete
    found = problems(out, CONFIG)
    assert len(found) == 2, found
    assert any("with 2 of its 6 clips" in problem for problem in found)
    assert all("run the build again" in problem and "delete" not in problem for problem in found)


def test_each_revision_of_a_partial_shard_replaces_the_one_before(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for revision, name in enumerate(["nsp-000000", "nsp-000000-r1", "nsp-000000-r2"]):
        build_inline(source, out, CONFIG, stop_after=2)
        files = sorted(path.name for path in (out / "shards/train/000").iterdir())
        whole = revision == 2
        ends = [".receipt.json", ".tar", ".tar.idx"] if whole else [".partial", ".receipt.json", ".tar", ".tar.idx"]
        assert files == [name + end for end in ends]
        assert sorted(path.name for path in (out / "ledger/train/000").iterdir()) == [f"{name}.parquet"]
        assert not [path for path in (*out.glob("parts/**/*"), *out.glob("ledger/units/*")) if path.is_file()]


def test_units_that_an_earlier_run_had_committed_are_sealed_too(source: Path, calm: Path, tmp_path: Path) -> None:
    """As after a kill: the second unit is committed, the first is not."""
    out = tmp_path / "out"
    given = Source.at(str(source))
    place = Storage.at(out)
    prepare(place, given, CONFIG)
    second = Plan(place, CONFIG).units(ShardName("train", 0))[1]
    job = UnitContext(CONFIG, given.root, place, ffmpeg.build(), "killed")
    cut_unit(job, second, screen_unit(job, second), [DescribedScene(clip.caption) for clip in second.clips])
    build_inline(source, out, CONFIG, stop_after=1)
    assert sealed_positions(out) == [0, 3, 4, 5]
    build_inline(source, out, CONFIG)
    assert_same_clips(calm, out, CONFIG)


def test_a_lost_receipt_of_a_partial_shard_is_not_that_of_a_whole_one(source: Path, calm: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_inline(source, out, CONFIG, stop_after=8)
    (out / "shards/train/000/nsp-000001.receipt.json").unlink()
    build_inline(source, out, CONFIG)
    assert_same_clips(calm, out, CONFIG)


def test_a_mark_left_without_a_receipt_means_nothing(source: Path, calm: Path, tmp_path: Path) -> None:
    """As after a kill before the receipt: then the shard is sealed whole, at the same revision."""
    out = tmp_path / "out"
    mark = out / "shards/train/000/nsp-000001.partial"
    build_inline(source, out, CONFIG, stop_after=8)
    (out / "shards/train/000/nsp-000001.receipt.json").unlink()
    (out / "shards/train/000/nsp-000001.tar").unlink()
    build_inline(source, out, CONFIG)
    assert not mark.exists()
    assert_same_clips(calm, out, CONFIG)


def test_a_partial_shard_that_lost_its_tar_is_made_anew(source: Path, calm: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        build_inline(source, out, CONFIG, stop_after=2)
    (out / "shards/train/000/nsp-000000-r1.tar").unlink()
    build_inline(source, out, CONFIG)
    assert_same_clips(calm, out, CONFIG)
    assert_conserved(out, CONFIG)


def test_a_shard_of_clips_that_were_all_rejected_is_partial_too(tmp_path: Path) -> None:
    config = replace(CONFIG, rules=replace(CONFIG.rules, min_width=1000))
    source = captioned_spans(tmp_path, 5, seconds=0.125, size="64x48")
    for done in (2, 4):
        summary = build_inline(source, tmp_path / "out", config, stop_after=2)
        assert (summary.decided, summary.shards_partial, summary.tars) == (done, 1, 0)
    build_inline(source, tmp_path / "out", config)
    assert_conserved(tmp_path / "out", config)


def test_of_a_clip_that_a_partial_shard_lacks_it_is_told_that_it_waits(source: Path, tmp_path: Path) -> None:
    build_inline(source, tmp_path / "out", CONFIG, stop_after=2)
    found = OpenDataset.at(Storage.at(tmp_path / "out"), CONFIG)
    (shard, *_) = [name for name, _ in Plan(found.out, CONFIG).shards()]
    clips = [clip for unit in Plan(found.out, CONFIG).units(shard) for clip in unit.clips]
    told = [clip_history(found, ClipLocation(clip.clip_id, shard, clip.unit, clip)) for clip in clips]
    assert [one.standing for one in told] == ["sealed"] * 2 + ["waiting"] * 4
    assert [one.sample is not None for one in told] == [True] * 2 + [False] * 4


def test_a_retry_on_partial_shards_finishes_them_first(tmp_path: Path) -> None:
    source = captioned_spans(tmp_path, 5, seconds=0.125, size="64x48")
    header, *rows = source.read_text().splitlines()
    late = [row.replace("film.mp4", "a late film.mp4") for row in rows[:2]]
    source.write_text("\n".join([header, *late, *rows[2:]]))
    out, retry = tmp_path / "out", frozenset({"absent"})
    build_inline(source, out, CONFIG, stop_after=2)
    assert [row.outcome for row in ledger(out, CONFIG)] == ["absent"] * 2
    shutil.copy(tmp_path / "film.mp4", tmp_path / "a late film.mp4")
    build_inline(source, out, CONFIG, retry=retry)
    assert [row.outcome for row in ledger(out, CONFIG)] == ["kept"] * 5
    assert_conserved(out, CONFIG)


def test_nothing_to_do_is_no_new_revision(source: Path, calm: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_inline(source, out, CONFIG, stop_after=CLIPS)
    before = (out / CHECKSUMS).read_bytes()
    build_inline(source, out, CONFIG, stop_after=1)
    assert (out / CHECKSUMS).read_bytes() == before


# ---- when the asking ends ----------------------------------------------------------------------------------------


ASKED = replace(CONFIG, judge="claude")


def test_what_was_decided_before_the_asking_ended_is_sealed(api: ClaudeApi, source: Path, tmp_path: Path) -> None:
    """Four runs that a spend limit ends, each after a few answers more, and one without: as one run."""
    out, before = tmp_path / "out", 0
    for _ in range(4):
        api.account = GOOD
        after_answers(api, 5, lambda: reach_spend_limit(api))
        with pytest.raises(RunStopped, match="spend limit"):
            build_inline(source, out, ASKED, judge_budget=judge_budget())
        assert len(sealed_positions(out)) > before
        before = len(sealed_positions(out))
        rows = ledger(out, ASKED)
        assert sum(row.kept for row in rows) == sum(shard.count for shard in Manifest.read(Storage.at(out)).shards)
        assert_unfinished(out)
    api.account = GOOD
    build_inline(source, out, ASKED, judge_budget=judge_budget())
    build_inline(source, tmp_path / "calm", ASKED, judge_budget=judge_budget())
    assert_same_clips(tmp_path / "calm", out, ASKED)
    assert_conserved(out, ASKED)
    assert account(out).spent == sum(answer.usd for answer in stored(out).values())


def test_a_key_that_is_refused_from_the_first_call_on_seals_nothing(
    api: ClaudeApi, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-wrong")
    with pytest.raises(UsageError, match="does not accept the key"):
        build_inline(source, tmp_path / "out", ASKED, judge_budget=judge_budget())
    assert has_only_plan(Storage.at(tmp_path / "out"))


def test_a_retry_that_the_asking_ends_leaves_the_sealed_shard_as_it_is(api: ClaudeApi, tmp_path: Path) -> None:
    out = tmp_path / "out"
    source = spans(tmp_path, ["a cat", "a dog REFUSE-DESCRIBE", "a bird REFUSE-DESCRIBE"])
    build_inline(source, out, ASKED, judge_budget=judge_budget())
    before = {shard.path: shard.sha256 for shard in Manifest.read(Storage.at(out)).shards}
    api.account = "spend_limit"
    with pytest.raises(RunStopped, match="spend limit"):
        build_inline(source, out, ASKED, retry=frozenset({"refused"}), judge_budget=judge_budget())
    assert {shard.path: shard.sha256 for shard in Manifest.read(Storage.at(out)).shards} == before
    assert CommittedState.read(Storage.at(out), ASKED.units_per_shard).complete(Plan(Storage.at(out), ASKED))


def assert_unfinished(out: Path) -> None:
    assert not Manifest.read(Storage.at(out)).complete
    for problem in problems(out, ASKED):
        assert "run the build again" in problem and "delete" not in problem, problem

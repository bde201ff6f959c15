"""The embedded judge: a rule on words, without a model."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nextscene.judge.base import NoVerdict, Question, Verdict
from nextscene.judge.film import FilmJudge, content_words, overlap
from tests.support import REPOSITORY

# Words that the rule takes as they are: no function word, no plural ending.
WORDS = [f"{first}{second}o" for first in "bcdfgklmnprtvz" for second in ("a", "e", "ui")]
sentences = st.lists(st.sampled_from([*WORDS, "the", "and", "of", "it's", "Dogs", "dog's", "42", "–"])).map(" ".join)


def verify(scene: str, caption: str, max_overlap: float = 0.5) -> Verdict:
    return asyncio.run(FilmJudge(max_overlap).verify(Question("id", caption), scene))


@given(st.one_of(sentences, st.text()), st.one_of(sentences, st.text()))
def test_the_overlap_is_symmetric_lies_in_0_to_1_and_names_words_of_both(one: str, other: str) -> None:
    share, common = overlap(one, other)
    assert 0 <= share <= 1
    assert (share, common) == overlap(other, one)
    assert common <= content_words(one) & content_words(other)
    assert (share > 0) is bool(common)


@given(sentences)
def test_a_text_overlaps_wholly_with_itself_whatever_the_order_and_case(text: str) -> None:
    assume(content_words(text))
    assert overlap(text, " ".join(reversed(text.upper().split())))[0] == 1


@given(st.sets(st.sampled_from(WORDS)), st.sets(st.sampled_from(WORDS)), st.sets(st.sampled_from(WORDS)))
def test_the_share_is_that_of_the_common_words_in_the_shorter_text(a: set[str], b: set[str], both: set[str]) -> None:
    a, b = a - b - both, b - a - both
    share, common = overlap(" ".join(a | both), " ".join(b | both))
    assert common == both
    shorter = min(len(a), len(b)) + len(both)
    assert share == pytest.approx(len(both) / shorter if shorter else 0)


def test_a_text_without_content_words_overlaps_with_nothing() -> None:
    assert overlap("the of and, it is 42", "the of and, it is 42") == (0, set())
    assert overlap("", "a rabbit") == (0, set())


def test_function_words_case_possessives_and_plurals_do_not_count() -> None:
    assert content_words("The rabbit’s ears; two RABBITS and a glass") == {"rabbit", "ear", "glass"}


@pytest.mark.parametrize(
    ("max_overlap", "verdict"),
    [(0.0, "Fail"), (0.25, "Fail"), (0.4999, "Fail"), (0.5, "Fail"), (0.5001, "Pass"), (1.0, "Pass")],
)
def test_a_caption_passes_below_the_threshold_and_fails_at_it(max_overlap: float, verdict: str) -> None:
    opinion = verify("bato beto", "bato luino", max_overlap)
    assert opinion.verdict == verdict
    assert "0.50" in opinion.reason and "bato" in opinion.reason


def test_the_same_moment_never_passes() -> None:
    assert verify("a rabbit sleeps", "a rabbit sleeps", 1.0).verdict == "Fail"


def test_the_scene_is_the_preceding_caption_word_for_word() -> None:
    question = Question("id", "the rabbit wakes", "A butterfly  lands –\nsoftly.")
    assert asyncio.run(FilmJudge(0.5).describe(question, ())).text == "A butterfly  lands –\nsoftly."


def test_the_first_shot_of_a_film_is_declined_as_a_rejection() -> None:
    with pytest.raises(NoVerdict) as declined:
        asyncio.run(FilmJudge(0.5).describe(Question("id", "the rabbit wakes", ""), ()))
    assert (declined.value.outcome, declined.value.reason) == ("rejected", "first_shot")


def test_all_that_it_makes_says_film_and_names_no_prompt() -> None:
    judge = FilmJudge(0.5)
    assert (judge.name, judge.rounds, judge.prompt_sha256) == ("film", 1, "")


def imported(program: str, cwd: Path) -> set[str]:
    """Of ray and torch, what `program` imported. Stand-ins in `cwd` make an attempt succeed, so that none is missed."""
    code = f"import sys\n{program}\nprint(*({{'ray', 'torch'}} & set(sys.modules)))"
    search = f"import sys; sys.path[:0] = [{str(cwd)!r}, {str(REPOSITORY)!r}]\n"
    done = subprocess.run([sys.executable, "-c", search + code], cwd=cwd, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def stand_in(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
    return folder


LOADING = (
    "nextscene.shards.loading.collate",
    "nextscene.shards.loading.loader",
    "nextscene.shards.loading.buffer_pool",
    "nextscene.shards.loading.streaming",
)
"""What a trainer needs, and no run does."""

ON_RAY = ("nextscene.training.distributed.ray_train",)
"""The one module that puts a trainer on Ray."""

IMPORT_ALL = f"""
import importlib, pkgutil
for package in {{packages!r}}:
    package = "nextscene." + package
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if module.name not in {(*LOADING, *ON_RAY)!r}:
            importlib.import_module(module.name)
"""


def test_the_stand_ins_would_be_seen(tmp_path: Path) -> None:
    assert imported("import ray, torch", stand_in(tmp_path, "ray", "torch")) == {"ray", "torch"}


@pytest.mark.parametrize("packages", [("judge", "prompts"), ("shards",)])
def test_judge_prompts_and_shards_import_neither_ray_nor_torch(packages: tuple[str, ...], tmp_path: Path) -> None:
    assert imported(IMPORT_ALL.format(packages=packages), stand_in(tmp_path, "ray", "torch")) == set()


def test_no_module_of_a_run_imports_torch_and_no_package_imports_ray_by_itself(tmp_path: Path) -> None:
    assert (
        imported("import nextscene.curation, nextscene.judge, nextscene.prompts, nextscene.shards", tmp_path) == set()
    )
    everything = IMPORT_ALL.format(packages=("curation", "judge", "pipelines", "prompts", "shards"))
    assert "torch" not in imported(everything, stand_in(tmp_path, "torch"))


def test_a_command_that_does_no_work_does_not_wait_for_ray(tmp_path: Path) -> None:
    assert imported("import nextscene.pipelines.build_nsp", stand_in(tmp_path, "ray")) == set()


def test_a_trainer_imports_ray_only_to_be_put_on_it(tmp_path: Path) -> None:
    assert imported(IMPORT_ALL.format(packages=("training",)), stand_in(tmp_path, "ray")) == {"torch"}

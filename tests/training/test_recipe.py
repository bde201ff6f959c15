"""Recipes: those that are shipped say what the paper does, and a mistake in one is told by its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.common.config_loader import SettingsError
from nextscene.pipelines.cli.options import chosen
from nextscene.pipelines.cli.training_job import RECIPES
from nextscene.training.config import DataConfig, MixConfig, ModelConfig, ObjectiveConfig
from nextscene.training.objectives import OBJECTIVES
from nextscene.training.recipe import STAGES, Recipe
from nextscene.training.rewards import REWARDS

pytestmark = pytest.mark.slow

PAPER = ("connector", "generator-2", "generator-3", "sft", "rl")
TINY = ("connector", "generator", "sft", "rl")
TOYS = tuple(f"{kind}/{name}" for kind in ("tiny", "shapes") for name in TINY)


def shipped(name: str) -> Recipe:
    return chosen(Recipe, RECIPES / f"{name}.toml", {})


def written(tmp_path: Path, toml: str) -> Recipe:
    file = tmp_path / "recipe.toml"
    file.write_text(toml)
    return chosen(Recipe, file, {})


def mistake(tmp_path: Path, toml: str) -> str:
    with pytest.raises(SettingsError) as told:
        written(tmp_path, toml)
    assert "\n" not in str(told.value)
    return str(told.value)


# ---- what is shipped --------------------------------------------------------------------------------------------


def test_every_recipe_that_is_shipped_is_of_the_paper_or_of_the_toy_model() -> None:
    found = {str(file.relative_to(RECIPES).with_suffix("")) for file in RECIPES.rglob("*.toml")}
    assert found == {*PAPER, *TOYS}
    assert all(shipped(name).name == name.rpartition("/")[2] for name in found)


@pytest.mark.parametrize(
    ("name", "epochs", "micro_batch"), [("connector", 3, 32), ("generator-2", 5, 8), ("generator-3", 2, 8)]
)
def test_pre_training_has_the_papers_epochs_and_batches(name: str, epochs: float, micro_batch: int) -> None:
    recipe = shipped(name)
    assert (recipe.epochs, recipe.steps, recipe.data.micro_batch) == (epochs, 0, micro_batch)
    assert recipe.data.global_batch == 32 * micro_batch  # 32 GPUs, section 13


@pytest.mark.parametrize("name", PAPER)
def test_all_stages_have_the_papers_optimizer_queries_lengths_and_sizes(name: str) -> None:
    recipe = shipped(name)
    if recipe.stage != "rl":  # of which the paper does not say
        assert (recipe.optimizer.kind, recipe.optimizer.lr, recipe.optimizer.warmup) == ("prodigy", 1.0, 0)
    assert recipe.model == ModelConfig(queries=256, hidden=0, max_tokens=1024)
    assert recipe.objective.dropout == 0.1
    assert (recipe.data.max_frames, recipe.data.width, recipe.data.height) == (65, 832, 480)


@pytest.mark.parametrize("names", [PAPER, tuple(f"tiny/{name}" for name in TINY)])
def test_stages_follow_one_another_and_only_the_first_freezes_the_transformer(names: tuple[str, ...]) -> None:
    recipes = [shipped(name) for name in names]
    assert [recipe.after for recipe in recipes] == ["", *(recipe.name for recipe in recipes[:-1])]
    assert sorted(recipes, key=lambda recipe: list(STAGES).index(recipe.stage)) == recipes
    assert {recipe.stage for recipe in recipes} == set(STAGES)
    assert [recipe.trainable for recipe in recipes] == [
        ("bridge.*",),
        *[("bridge.*", "transformer.*")] * len(names[1:]),
    ]


@pytest.mark.parametrize("name", [*PAPER, *TOYS])
def test_captions_come_before_and_scenes_only_in_fine_tuning(name: str) -> None:
    recipe = shipped(name)
    forms = {(mix.text, mix.prompt) for mix in recipe.mix}
    assert forms == {("scene", "nsp") if recipe.stage in ("sft", "rl") else ("caption", "t2v")}


def test_reinforcement_learning_has_the_papers_numbers() -> None:
    """Section 13: 16 GPUs with a batch of 1 and an accumulation of 8, 60 steps, 24 candidates, of which 4 + 4."""
    recipe = shipped("rl")
    policy = recipe.policy
    assert (recipe.steps, recipe.data.global_batch, recipe.data.micro_batch) == (60, 16, 1)
    assert (policy.group_size, policy.best_of, policy.batch, policy.steps, policy.guidance) == (24, 8, 1, 20, 3.0)
    assert recipe.reward.kind == "causal_consistency"
    assert [shipped(f"{toy}/rl").reward.kind for toy in ("tiny", "shapes")] == ["retrieval", "shapes"]  # cost nothing


# ---- mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[optimser]\nlr = 1.0", ["optimser.lr", "optimizer.lr"]),
        ("epoch = 3.0", ["epoch", "'epochs'"]),
        ("[data]\nmicrobatch = 8", ["data.microbatch", "'data.micro_batch'"]),
        ("[[mix]]\nnam = 'a'", ["mix", "'nam'", "'name'"]),
        ("[[mix]]\nweight = 'much'", ["mix", "weight", "'much'", "a number"]),
        ("[[mix]]\ntext = 'title'", ["mix", "'title'", "one of caption, scene"]),
        ("[[mix]]\nname = 'a'\n[[mix]]\nname = 'a'", ["mix", "a name of its own"]),
        ("[[mix]]\nweight = -1.0", ["mix 'data'", "at least 0", "-1.0"]),
        ("mix = []", ["mix needs at least one dataset"]),
        ("mix = ['blip3o']", ["mix", "a list of tables"]),
        ("trainable = 'bridge.*'", ["trainable", "a list of texts"]),
        ("[data]\nglobal_batch = 12", ["data.global_batch 12", "data.micro_batch 8"]),
        ("[data]\nmicro_batch = 0", ["data.micro_batch", "above 0"]),
        ("[optimizer]\nkind = 'sgd'", ["optimizer.kind", "prodigy, adamw"]),
        ("[optimizer]\nema = 1.0", ["optimizer.ema", "between 0 and 1"]),
        ("[objective]\ndropout = 1.5", ["objective.dropout", "between 0 and 1"]),
        ("[optimizer]\nlr = nan", ["optimizer.lr", "nan"]),
        ("[optimizer]\nmax_grad_norm = inf", ["optimizer.max_grad_norm", "inf"]),
        ("epochs = 0.0", ["either steps or epochs"]),
        ("name = '../elsewhere'", ["name", "a folder's"]),
        ("steps = ", ["recipe.toml"]),
    ],
)
def test_a_mistake_is_told_by_its_name_and_the_nearest_known_one(tmp_path: Path, toml: str, words: list[str]) -> None:
    message = mistake(tmp_path, toml)
    assert "recipe.toml" in message
    assert [word for word in words if word not in message] == []


@given(st.integers(1, 64), st.integers(1, 64))
def test_scenes_are_shared_evenly_or_refused_with_what_would_fit(scenes: int, world: int) -> None:
    """A rank without a scene would make a whole group of candidates for nothing. Clips are dealt to any number."""
    data = DataConfig(micro_batch=1, global_batch=scenes)
    Recipe(data=data).check_ranks(world)
    scenes_of = Recipe(stage="rl", data=data)
    if scenes % world == 0:
        scenes_of.check_ranks(world)
        return
    with pytest.raises(ValueError, match=f"cannot be shared evenly by {world} processes") as told:
        scenes_of.check_ranks(world)
    fitting = str(told.value).partition("; use ")[2].partition(" processes")[0]
    named = [int(word) for word in fitting.replace(" or ", ", ").split(", ")]
    assert named == [ranks for ranks in range(1, scenes + 1) if scenes % ranks == 0]


@given(st.floats(0.01, 20), st.integers(1, 10**8))
def test_epochs_show_each_sample_as_often_as_they_say(epochs: float, samples: int) -> None:
    recipe = Recipe(epochs=epochs)
    shown = recipe.total_steps(samples) * recipe.data.global_batch
    assert epochs * samples <= shown * (1 + 1e-9) and shown < epochs * samples + recipe.data.global_batch
    assert replace(recipe, steps=7).total_steps(samples) == 7


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"steps": 9}, True),
        ({"epochs": 9.0}, True),
        ({"logging": replace(Recipe().logging, checkpoint_every=1)}, True),
        ({"parallel": replace(Recipe().parallel, checkpointing="full", replicas=4)}, True),
        ({"parallel": replace(Recipe().parallel, precision="fp32")}, False),
        ({"data": replace(Recipe().data, workers=0, max_bad_clips=3)}, True),
        ({"data": replace(Recipe().data, window=2)}, False),
        ({"optimizer": replace(Recipe().optimizer, lr=0.5, max_grad_norm=0.1, warmup=10)}, True),
        ({"optimizer": replace(Recipe().optimizer, beta2=0.9)}, False),
        ({"mix": (MixConfig(weight=2.0),)}, False),
        ({"objective": ObjectiveConfig(dropout=0.2)}, False),
        ({"seed": 1}, False),
    ],
)
def test_what_decides_what_is_learned_may_not_change_on_the_way(changes: dict[str, Any], same: bool) -> None:
    assert (replace(Recipe(), **changes).identity_settings() == Recipe().identity_settings()) is same


# ---- names of the version before -----------------------------------------------------------------------------------

OLD = """\
[optimiser]
kind = "adamw"
clip = 0.5
[data]
micro_batch = 1
skip_at_most = 3
[policy]
candidates = 6
best_of = 2
clip = 1e-2
kl = 0.5
normalise = "step"
[keeping]
keep_last = 7
"""


def test_recipes_with_old_names_work_and_each_name_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = written(tmp_path, OLD)
    assert (recipe.optimizer.kind, recipe.optimizer.max_grad_norm) == ("adamw", 0.5)
    assert (recipe.data.max_bad_clips, recipe.logging.keep_last) == (3, 7)
    policy = recipe.policy
    assert (policy.group_size, policy.clip_range, policy.kl_coef, policy.normalize) == (6, 1e-2, 0.5, "step")
    warned = [line.getMessage() for line in caplog.records]
    assert len(warned) == 8
    assert "optimiser.clip is now called optimizer.max_grad_norm" in "\n".join(warned)


# ---- registries ------------------------------------------------------------------------------------------------------


def test_every_stage_has_an_objective_and_every_reward_a_class() -> None:
    assert set(STAGES.values()) == set(OBJECTIVES)
    for name, entry in REWARDS.items():
        assert getattr(entry.load(), "name", None) == name


def test_a_stage_that_is_registered_can_be_named_in_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "sft-2" in mistake(tmp_path, "stage = 'sft-2'")
    monkeypatch.setitem(STAGES, "sft-2", "flow_matching")
    assert written(tmp_path, "stage = 'sft-2'").stage == "sft-2"

"""The templates: the paper's words, found by name, filled once."""

from __future__ import annotations

import hashlib
import re
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene import prompts
from nextscene.prompts import NAMES, PromptError, load
from tests.support import REPOSITORY

SUPPLEMENT = REPOSITORY.parent / "shared" / "seed" / "nsp-supplement.txt"

# A changed template makes other data. Whoever changes one changes it here too, and says so in CHANGELOG.md.
SHA256 = {
    "preceding_description": "abbf45b4cd97132430cb7f73d34c2adb559e7587a9f12d88cb4357490fb6961b",
    "verification": "4aede26cb2a5940bc954ba1c64a2d5d315338a88bbc4d4ccc79ff38705781dc5",
    "causal_consistency": "c7694eb10001d59b88273fe5373d8fd10a886cff0cb6797d6a9eeac18b96a3dc",
    "next_scene": "506dbbcba424eea1d3034d1795eeaffbcdda3960b7bb5960878e00bf1f7cc439",
    "text_to_video": "71477611496e7b4167784b4274ce3b1497aeae04d2264a2b5701ee2d041b9523",
    "caption": "7b369375f887cef1c553506a44410a668c7be66f72e8a6f231dfe4873cd9cc19",
    "retry": "c0c1f9274d8140dc378a96260519cb68124c64c83fa6213966b42a19dabfcf2d",
    "notice": "6e9608255df3f3ce1a6e0bb493c0b1a3aa6311c381a05f69c2e0cbf8efa88438",
}
# Where each of the paper's templates stands in the supplement, by the heading above it.
HEADINGS = {
    "causal_consistency": "Template 10.1: Causal Consistency Reward",
    "preceding_description": "Preceding Description Prompt Template",
    "verification": "Verification Prompt Template",
}


def collapsed(text: str) -> str:
    return " ".join(text.split())


def test_every_text_file_of_the_package_is_a_template_with_a_pinned_hash() -> None:
    files = {entry.name.removesuffix(".txt") for entry in resources.files(prompts).iterdir() if ".txt" in entry.name}
    assert files == set(NAMES) == set(SHA256)


@pytest.mark.parametrize("name", NAMES)
def test_the_text_is_the_file_without_its_last_newline_and_its_hash_is_pinned(name: str) -> None:
    raw = resources.files(prompts).joinpath(f"{name}.txt").read_bytes()
    prompt = load(name)
    assert prompt.name == name
    assert raw == prompt.text.encode() + b"\n"
    assert prompt.sha256 == hashlib.sha256(raw[:-1]).hexdigest() == SHA256[name]


@pytest.mark.parametrize("name", sorted(HEADINGS))
def test_the_papers_templates_are_its_words(name: str) -> None:
    if not SUPPLEMENT.is_file():
        pytest.skip(f"the paper's supplement is not at {SUPPLEMENT}")
    after_heading = SUPPLEMENT.read_text(encoding="utf-8").split(HEADINGS[name], 1)[1]
    block = re.search(r"^```$(.*?)^```$", after_heading, re.DOTALL | re.MULTILINE)
    assert block is not None
    assert collapsed(load(name).text) == collapsed(block.group(1))


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PromptError, match="no prompt 'verify'") as error:
        load("verify")
    assert all(name in str(error.value) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_exactly_the_fields_of_the_template_are_taken(name: str) -> None:
    prompt = load(name)
    right = dict.fromkeys(prompt.markers, "a text")
    assert prompt.fill(**right) != "" and (prompt.fill(**right) == prompt.text) is (not right)
    with pytest.raises(PromptError, match=name):
        prompt.fill(**right, other="a text")
    for field in right:
        with pytest.raises(PromptError, match=field):
            prompt.fill(**{key: value for key, value in right.items() if key != field})


def test_a_value_that_contains_a_marker_is_not_filled_in_turn() -> None:
    filled = load("causal_consistency").fill(scene_description="the word {caption}", caption="a {scene_description}")
    assert "Scene Description: the word {caption}\n" in filled
    assert "Caption: a {scene_description}\n" in filled


def test_a_value_is_taken_as_it_is_and_not_as_a_pattern() -> None:
    assert load("next_scene").fill(scene_description=r"\1 \g<0> {} %s").endswith(r": \1 \g<0> {} %s")


@given(st.text(), st.text())
def test_what_is_filled_in_stands_between_the_untouched_words_of_the_template(scene: str, caption: str) -> None:
    prompt = load("causal_consistency")
    before, _, rest = prompt.text.partition("{scene_description}")
    between, _, after = rest.partition("{caption}")
    assert prompt.fill(scene_description=scene, caption=caption) == before + scene + between + caption + after

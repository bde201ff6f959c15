"""The page of whole datasets: it counts what the ledger holds, shows what the shards hold, and believes no caption."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from nextscene.common.storage import Storage
from nextscene.curation.run.prepare import prepare
from nextscene.curation.sources import Source
from nextscene.judge.registry import JUDGES
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.receipt import Receipt
from tests.curation.report.made import MARKERS, Made
from tests.curation.report.pages import HOSTILE, folded, pictures, report
from tests.fakes.loopback import account
from tests.support import SMALL, build_inline, captioned_spans

pytestmark = pytest.mark.slow


def test_the_outcomes_are_the_ledgers_and_add_up_to_what_was_planned(made: Made) -> None:
    assert made.page.outcomes() == Counter((row.outcome, row.reason) for row in made.rows)
    assert len(made.page.outcomes()) >= 6
    assert sum(made.page.outcomes().values()) == len(made.rows) == len(MARKERS) + len(HOSTILE) + 2
    parts, planned = made.page.text("#sum").removesuffix(" planned.").split(" = ")
    assert sum(int(part.split()[0]) for part in parts.split(" + ")) == int(planned) == len(made.rows)


def test_the_rounds_are_those_of_the_verdicts(made: Made) -> None:
    passed = Counter(f"passed in round {row.rounds}" for row in made.rows if row.verdict == "Pass")
    dropped = sum(row.outcome == "dropped" for row in made.rows)
    assert made.page.rounds() == {**passed, "dropped, no scene passed": dropped}
    assert len(passed) == 3


def test_what_was_paid_is_what_the_account_and_the_ledger_say(made: Made) -> None:
    assert made.page.number("#spent") == pytest.approx(float(account(made.out).spent), abs=5e-5)
    assert made.page.number("#ledger-usd") == pytest.approx(sum(row.usd for row in made.rows), abs=5e-5)
    assert made.page.number("#input-tokens") == sum(row.input_tokens for row in made.rows)
    assert made.page.number("#output-tokens") == sum(row.output_tokens for row in made.rows)


def test_every_clip_has_a_card_that_says_how_it_ended(made: Made) -> None:
    cards = made.page.cards()
    assert set(cards) == {row.clip_id for row in made.rows}
    for row in made.rows:
        card, said = cards[row.clip_id], folded(cards[row.clip_id])
        assert (card.attributes["data-outcome"], card.attributes["data-split"]) == (row.outcome, row.split)
        assert row.outcome in said
        assert row.reason in said
        assert " ".join(row.verdict_reason.split()) in said
        assert row.source in said
        assert row.judge_model in said
        for attempt in json.loads(row.turned_down or "[]"):
            assert attempt["scene"] in said


def test_what_is_not_kept_stands_in_a_table_with_its_file_its_span_and_why(made: Made) -> None:
    wanted = {(row.source, row.outcome, row.reason) for row in made.rows if not row.kept}
    table = [[folded(cell) for cell in line.css("td")] for line in made.page.nodes("#not-kept tbody tr")]
    assert {(file, outcome, reason) for file, _, outcome, reason, _ in table} == wanted
    assert ("gone<b>.mp4", "whole") in {(file, span) for file, span, *_ in table}
    spans = {span for file, span, *_ in table if file == "film.mp4"}
    assert spans and all(re.fullmatch(r"\d:\d\d\.\d–\d:\d\d\.\d", span) for span in spans)
    assert all(why for *_, why in table)


def test_kept_clips_are_shown_from_their_shard_and_the_others_from_their_source(made: Made) -> None:
    cards = made.page.cards()
    for row in made.rows:
        card = cards[row.clip_id]
        assert (pictures(card) == 0) == (row.reason == "no_file")
        for picture in card.css("img"):
            kind, data = (picture.attributes["src"] or "").split(",")
            assert kind == "data:image/jpeg;base64"
            assert Image.open(io.BytesIO(base64.b64decode(data))).format == "JPEG"
    assert "No picture: its source shows none: gone<b>.mp4 is gone." in made.page.tree.body.text()


def test_a_caption_is_text_whatever_it_holds(made: Made) -> None:
    captions = {row.clip_id: row.caption for row in made.rows}
    for clip_id, card in made.page.cards().items():
        said = folded(card.css(".caption")[0])
        whole = " ".join(captions[clip_id].split())
        assert said == whole or (said.endswith("more characters") and whole.startswith(said.split(" … and ")[0]))
    assert len(made.page.nodes("script")) == 1
    assert len(made.page.nodes("style")) == 1
    handlers = [name for node in made.page.nodes("*") for name in node.attributes if name.startswith("on")]
    assert handlers == []
    assert [
        node.attributes["src"] for node in made.page.nodes("img") if "base64" not in (node.attributes["src"] or "")
    ] == []


def test_the_policy_allows_exactly_what_the_page_holds(made: Made) -> None:
    (policy,) = made.page.nodes('meta[http-equiv="Content-Security-Policy"]')
    rules = dict(rule.strip().split(" ", 1) for rule in (policy.attributes["content"] or "").split(";"))
    assert rules.pop("default-src") == "'none'"
    assert rules.pop("img-src") == "data:"
    for kind in ("script", "style"):
        inside = made.page.html.split(f"<{kind}>")[1].split(f"</{kind}>")[0]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules.pop(f"{kind}-src") == f"'sha256-{digest}'"
    assert set(rules.values()) == {"'none'"}
    assert not [node for node in made.page.nodes("*") if "style" in node.attributes]
    assert made.page.nodes("link, iframe, object, embed, base, a[href]") == []


def test_the_same_dataset_gives_the_same_page(made: Made) -> None:
    assert report(made.out, made.config, made.source).html == made.page.html


def test_without_the_source_the_page_says_so(made: Made) -> None:
    page = report(made.out, made.config, None)
    assert page.outcomes() == made.page.outcomes()
    cards = page.cards()
    for row in made.rows:
        assert (pictures(cards[row.clip_id]) > 0) == row.kept
        assert row.kept or "its source is not available" in folded(cards[row.clip_id])


def test_the_words_of_the_judge_film_say_that_it_is_not_the_papers_method(tmp_path: Path) -> None:
    config = replace(SMALL, judge="film")
    source = captioned_spans(tmp_path, 4)
    build_inline(source, tmp_path / "out", config)
    page = report(tmp_path / "out", config, source)
    assert page.text("h1") == "3 scenes, and what happened next"
    assert page.text("#method").startswith("Not the paper’s method.")
    assert JUDGES["film"].method in page.text("#method")
    assert page.outcomes() == {("kept", ""): 3, ("rejected", "first_shot"): 1}
    assert page.text("#cost") == "Nothing: the judge film makes no paid calls."


def test_without_scenes_there_are_captions_and_no_rounds(tmp_path: Path) -> None:
    build_inline(captioned_spans(tmp_path, 3), tmp_path / "out", SMALL)
    page = report(tmp_path / "out", SMALL)
    assert page.text("h1") == "3 captioned clips"
    assert JUDGES["none"].method in page.text("#method")
    assert page.nodes("#rounds") == []
    assert [folded(title) for title in page.nodes("h3")] == [
        "Length of a clip",
        "Shorter side of the source",
        "Words in the caption",
    ]


def test_files_of_another_time_than_planned_are_told(tmp_path: Path) -> None:
    source = captioned_spans(tmp_path, 3)
    build_inline(source, tmp_path / "one", SMALL)
    assert report(tmp_path / "one", SMALL).nodes("#retimed") == []
    prepare(Storage.at(tmp_path / "other"), Source.at(str(source)), SMALL)
    os.utime(tmp_path / "film.mp4", ns=(1, 10**18))
    build_inline(source, tmp_path / "other", SMALL)
    assert (
        report(tmp_path / "other", SMALL)
        .text("#retimed")
        .startswith("The files of 3 clips had another modification time than")
    )


def test_a_damaged_shard_costs_its_own_pictures(tmp_path: Path) -> None:
    build_inline(captioned_spans(tmp_path, 6), tmp_path / "out", SMALL)
    name = ShardName("train", 0)
    clips = Receipt.read(Storage.at(tmp_path / "out"), name).clip_ids
    tar = tmp_path / "out" / name.tar
    data = bytearray(tar.read_bytes())
    middle = data.index(b"mdat") + 100
    data[middle] ^= 255
    tar.write_bytes(data)
    page = report(tmp_path / "out", SMALL)
    assert page.outcomes() == {("kept", ""): 6}
    for clip_id, card in page.cards().items():
        damaged = clip_id == clips[0]
        assert (pictures(card) == 0) == damaged
        assert ("No picture: it cannot be read from its shard" in folded(card)) == damaged


def test_a_run_that_is_not_at_its_end_counts_what_is_committed(tmp_path: Path) -> None:
    build_inline(captioned_spans(tmp_path, 6), tmp_path / "out", SMALL)
    out = Storage.at(tmp_path / "out")
    for lost in (ShardName("train", 1).receipt, ShardName("train", 1).ledger, "summary.json"):
        out.delete(lost)
    page = report(tmp_path / "out", SMALL)
    assert page.outcomes() == {("kept", ""): 4}
    assert page.text("#sum") == "4 kept + 2 not decided yet = 6 planned."


def test_before_anything_is_decided_there_is_a_page_too(tmp_path: Path) -> None:
    build_inline(captioned_spans(tmp_path, 2), tmp_path / "out", SMALL)
    out = Storage.at(tmp_path / "out")
    for folder in ("shards", "ledger"):
        for entry in out.files(folder, recursive=True):
            out.delete(entry.path)
    page = report(tmp_path / "out", SMALL)
    assert page.text("#sum") == "2 not decided yet = 2 planned."
    assert page.outcomes() == {}
    assert page.cards() == {}

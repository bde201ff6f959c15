"""What people mistake around models: one line each, before torch is loaded, and nothing made or changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipelines.wrong_inputs import Wrong, assert_refused, lay_places, wrong

pytestmark = pytest.mark.slow

RUN = "generate --run {run} --out {out}"
ONE = "generate --scene a --out {out}"
STEP = "--checkpoint {run/sft/checkpoints/step-7}"
SFT = "train --stage sft --recipe sft --init {run/sft/checkpoints/step-7} --out {out}"
MODELS = "--qwen {qwen} --ltx {ltx}"
TRAIN = f"{SFT} --data nsp={{data}} {MODELS}"
LATENTS = "encode_latents --out {out} --max-frames 9 --size 32x24"
EVALUATE = "evaluate --scenes {scenes.txt} --out {out}"

WRONG = [
    # the wrong folder
    wrong(f"{ONE} --run {{data}}", "{data} holds no trained model, but a dataset", "train a stage"),
    wrong(f"{ONE} --run {{latents}}", "{latents} holds no trained model, but latents"),
    wrong(f"{ONE} --run {{run/sft}}", "{run/sft} holds no trained model", "is {run} meant?"),
    wrong(f"{ONE} --run {{run/export/nextscene.json}}", "holds no trained model", "is {run/export} meant?"),
    wrong(f"{ONE} --run {{run/sft/checkpoints/step-7}}", "but a checkpoint", "is {run} meant?"),
    wrong(
        f"{ONE} {MODELS} --checkpoint {{run/sft}}",
        "not a complete checkpoint",
        "is {run/sft/checkpoints/step-7} meant?",
    ),
    wrong(
        f"{ONE} {MODELS} --checkpoint {{run}}", "not a complete checkpoint", "is {run/sft/checkpoints/step-7} meant?"
    ),
    wrong(f"{ONE} {MODELS} --checkpoint {{run/export}}", "there is no about.json in it", "name a folder such as"),
    wrong(f"{ONE} {STEP} --qwen {{ltx}} --ltx {{qwen}}", "--qwen {ltx} and --ltx {qwen}", "swap them"),
    wrong(f"{ONE} {STEP} --qwen {{qwen}} --ltx {{ltx/vae}}", "--ltx {ltx/vae} holds no transformer", "is {ltx} meant?"),
    wrong(f"{ONE} {STEP} --qwen {{cut}} --ltx {{ltx}}", "--qwen {cut} holds no config.json", "is {cut/qwen} meant?"),
    wrong(f"{ONE} --original --ltx {{ltx}}", "--ltx {ltx} holds no text_encoder"),
    wrong(f"{RUN} --scenes {{data}}", "--scenes", "is a directory", "name a file"),
    wrong(f"{TRAIN} --data nsp={{latents}}", "--data nsp is given twice"),
    wrong(f"{SFT} {MODELS} --data nsp={{latents}}", "--data {latents} holds no dataset, but latents"),
    wrong(f"{SFT} {MODELS} --data nsp={{data/shards}}", "{data/shards} holds no dataset", "is {data} meant?"),
    wrong(f"{SFT} {MODELS} --data nsp={{data/manifest.json}}", "{data/manifest.json} is a file; name a folder"),
    wrong(f"{TRAIN} --init {{run/sft}}", "not a complete checkpoint", "is {run/sft/checkpoints/step-7} meant?"),
    wrong(f"{LATENTS} --data {{latents}} --ltx {{ltx}}", "--data {latents} holds no dataset, but latents"),
    wrong(f"{LATENTS} --data {{data}} --ltx {{qwen}}", "--ltx {qwen} holds no vae"),
    wrong(f"{LATENTS} --data {{data}} --ltx {{ltx/vae}}", "--ltx {ltx/vae} holds no vae", "is {ltx} meant?"),
    wrong(f"{EVALUATE} --model a={{data}}", "{data} holds no trained model, but a dataset"),
    wrong("evaluate --data {run} --model a={run} --out {out}", "--data {run} holds no dataset, but a training run"),
    wrong("evaluate --data {data/manifest.json} --model a={run} --out {out}", "is a file; name a folder"),
    # an export in the place of the originals
    wrong(
        f"{SFT} --data nsp={{data}} --qwen {{qwen}} --ltx {{run/export}}",
        "{run/export} is an export of training, whose bridge would be left out",
        "{run/export}, and with it",
        "{run/export/language_model}",
    ),
    wrong(
        f"{SFT} --data nsp={{data}} --qwen {{run/export}} --ltx {{ltx}}",
        "{run/export} is an export of training, not Qwen2.5-VL",
        "{run/export/language_model}",
    ),
    wrong(f"{ONE} {STEP} --qwen {{qwen}} --ltx {{run/export}}", "{run/export} is an export of training"),
    wrong(
        f"train --stage sft --recipe sft --data nsp={{data}} --out {{out}} {MODELS} --init {{run/export}}",
        "{run/export} does not say what was trained",
    ),
    # a folder that is not whole, or of another model
    wrong(f"{ONE} {STEP} --qwen {{cut/qwen}} --ltx {{ltx}}", "model.safetensors is damaged", "download it again"),
    wrong(f"{ONE} {STEP} --qwen {{wordless/qwen}} --ltx {{ltx}}", "holds no tokenizer; take tokenizer.json along"),
    wrong(f"{ONE} {STEP} --qwen {{qwen}} --ltx {{parted/ltx}}", "lacks part-00002-of-00002.safetensors"),
    wrong(f"{ONE} {STEP} --qwen {{qwen}} --ltx {{deeper/ltx}}", "was trained from other models than --qwen and --ltx"),
    wrong(f"{ONE} {STEP} --qwen {{qwen}} --ltx {{newer/ltx}}", "as LTX-Video 0.9.1 and later do"),
    wrong(f"{SFT} --data nsp={{data}} --qwen {{cut/qwen}} --ltx {{ltx}}", "model.safetensors is damaged"),
    wrong(f"{LATENTS} --data {{data}} --ltx {{newer/ltx}}", "name LTX-Video 0.9.0"),
    # videos that are there, and videos that cannot be
    wrong("generate --run {run} --scenes {scenes.txt} --out {videos}", "0000.mp4 is there", "--steps was 2, is 50"),
    wrong("generate --run {run} --scenes {scenes.txt} --out {videos} --steps 2 --seed 3", "(--seed) was 0, is 3"),
    wrong("generate --run {run} --scene Two. --out {videos} --steps 2", "the scene was 'One.', is 'Two.'"),
    wrong("generate --run {run} --scene One. --out {videos} --steps 2 --form t2v", "the model was 'sft-7-nsp-"),
    wrong(f"{RUN} --scene a --frames 10", "10 frames are not of the form 4k + 1; the nearest are 9 and 13"),
    wrong(f"{RUN} --scene a --frames 3", "the nearest are 1 and 5"),
    wrong(f"{RUN} --scene a --width 33", "33×24 pixels", "the nearest are 32×24 and 36×24"),
    wrong(f"{RUN} --scene a --width 1 --height 1", "the nearest are 4×4"),
    wrong(f"{RUN} --scene a --frames 1000000001", "--frames: 1000000001 is not in the range"),
    wrong(f"{RUN} --scene a --samples 1000000000", "--samples: 1000000000 is not in the range"),
    wrong("generate --run {run} --scene a --out {clip.mov}", "a single video ends in .mp4"),
    # scenes
    wrong(f"{RUN} --scenes {{blank.txt}}", "--scenes {blank.txt} holds no scene; give one on each line"),
    wrong(f"{RUN} --scenes {{utf16.txt}}", "is not text in UTF-8, but in UTF-16; save it as UTF-8"),
    wrong(f"{RUN} --scenes {{zero.txt}}", "{zero.txt}: line 1 holds a zero byte"),
    wrong(f"{RUN} --scenes {{long.txt}}", "{long.txt}: line 1 has 49,999 bytes, and 16,384 are the most"),
    wrong(f"{EVALUATE.replace('scenes.txt', 'blank.txt')} --model a={{run}}", "holds no scene"),
    # numbers, sizes, flags
    wrong(f"{RUN} --scene a --guidance 3,5", "--guidance: '3,5' is not a number; write it in digits alone"),
    wrong(f"{RUN} --scene a --width 832x480", "--width: '832x480' is not a whole number"),
    wrong(f"{RUN} --scene a --num-frames 9", "--num-frames: no such flag; is --frames meant?"),
    wrong(f"{LATENTS} --data {{data}} --ltx {{ltx}} --size 832*480", "'832*480' is not a width", "write it as 832x480"),
    wrong(f"{LATENTS} --data {{data}} --ltx {{ltx}} --max-frames 10", "max_frames 10 is not of the form 8k + 1"),
    wrong(f"{TRAIN} --lr 0.1", "--lr: no such flag; is --optimizer.lr meant?"),
    wrong(f"{TRAIN} --optim.lr 0.1", "--optim.lr: no such flag; is --optimizer.lr meant?"),
    wrong(f"{TRAIN} --parallel.compile maybe", "'maybe' is neither true nor false"),
    wrong(f"{TRAIN} --objective.dropout 10", "objective.dropout must lie between 0 and 1, not 10"),
    wrong(f"{EVALUATE} --model a={{run}} --max-scenes 1,000", "--max-scenes: '1,000' is not a whole number"),
    # places
    wrong(f"{ONE} --run ''", "--run '' is empty", "is a variable not set?"),
    wrong(f"{ONE} {STEP} --qwen '' --ltx {{ltx}}", "--qwen '' is empty"),
    wrong(f"{ONE} --run s3://bucket/run", "--run: s3://bucket/run is not a local path"),
    wrong(f"{ONE} --run '{{run}} '", "begins or ends with white space; give it without"),
    wrong("generate --run {run} --scene a --out 'C:\\videos'", "a path of Windows", "/mnt/c/videos"),
    wrong(f"{EVALUATE} --model 'a=C:\\run'", "--model a=C:\\run", "a path of Windows"),
    wrong(f"{SFT} {MODELS} --data 'nsp=$DATA/nsp'", "the shell put nothing in for $DATA"),
    # the environment
    wrong(TRAIN, "RANK=2 WORLD_SIZE=2 is not a process of a group", RANK="2", WORLD_SIZE="2"),
    wrong(TRAIN, "WORLD_SIZE=many is not a process of a group", RANK="0", WORLD_SIZE="many"),
    wrong(TRAIN, "WORLD_SIZE=4 is set and RANK is not", WORLD_SIZE="4"),
    wrong(TRAIN, "RANK is set and MASTER_ADDR is not", RANK="0", WORLD_SIZE="2"),
    wrong(TRAIN, "LOCAL_RANK=gpu0 is not the number of a process", LOCAL_RANK="gpu0"),
    wrong(
        f"{EVALUATE} --model a={{run}}", "ANTHROPIC_API_KEY is not set; set it, or fill folders for VBench by --vbench"
    ),
    wrong(f"{EVALUATE} --model a={{run}}", "holds quotes", ANTHROPIC_API_KEY='"sk-ant-a"'),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_places(tmp_path_factory.mktemp("wrong") / "places")


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_a_mistake_is_one_line_and_changes_nothing(case: Wrong, places: Path) -> None:
    assert_refused(case, places)


def test_none_of_them_waits_for_torch(places: Path) -> None:
    """In a process of its own: in this one, others may have loaded it."""
    code = (
        "import sys; from pathlib import Path; from tests.pipelines import test_wrong_models as table\n"
        "for case in table.WRONG[::8]: table.assert_refused(case, Path(sys.argv[1]))\n"
        "assert not {'torch', 'transformers', 'diffusers', 'anthropic'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(places)], check=True, timeout=120)


def test_blank_lines_are_skipped_and_move_no_scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nextscene.pipelines.cli.generation import scenes_in

    (tmp_path / "plain.txt").write_text("One.\nTwo.\nThree.\n")
    (tmp_path / "blank.txt").write_text("\nOne.\n\n \t\nTwo.\r\n\nThree.\n\n")
    assert scenes_in("--scenes", tmp_path / "plain.txt") == ["One.", "Two.", "Three."]
    assert capsys.readouterr().err == ""
    assert scenes_in("--scenes", tmp_path / "blank.txt") == ["One.", "Two.", "Three."]
    assert "4 blank lines skipped" in capsys.readouterr().err

"""Train the toy model on the world of shapes with several seeds, and score it: `python -m tests.toy_world`.

It runs the commands of `make train WORLD=shapes`, the stages once for each seed, and evaluates the stages sft and rl on
scenes that are followed by combinations held out, and on scenes whose right effect is rare. `--control` trains on a
dataset whose scenes are shuffled among its clips instead. It exits with 1 if a figure of docs/performance.md is missed.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nextscene.samples.shapes.world import ATTRIBUTES
from tests.support import REPOSITORY
from tests.toy_world.shares import ALL, CHANCE, Video, gain, read_items, share

STAGES = ("connector", "generator", "sft", "rl")
SIZE = ("--max-frames", "9", "--size", "64x64")
SAMPLING = ("--frames", "9", "--width", "64", "--height", "64", "--steps", "10", "--guidance", "1")
SAMPLES = {"held_out": 1, "rare": 4}
"""Name of each file of scenes → videos of each scene."""
LEAST, LEAST_ALL, LEAST_GAIN, MOST_LOSS = 0.85, 0.5, 0.1, -0.03


def run(name: str, *arguments: object) -> None:
    """Run a command of pipelines/, and print its time. Raise RuntimeError if it fails."""
    begun = time.monotonic()
    command = [sys.executable, REPOSITORY / "pipelines" / f"{name}.py", *map(str, arguments)]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, used = os.wait4(started.pid, 0)
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode:
        raise RuntimeError(f"{command} ended with code {started.returncode}")
    wall, cpu = time.monotonic() - begun, used.ru_utime + used.ru_stime
    print(f"{name:<16}{wall:8.1f} s {cpu:8.1f} CPU-s  {' '.join(map(str, arguments[:2]))}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--control", action="store_true", help="shuffle the scenes among the clips")
    parser.add_argument("--out", type=Path, default=Path("runs/toy-world"))
    asked = parser.parse_args()
    out = asked.out / ("control" if asked.control else "shapes")
    stages = STAGES[:-1] if asked.control else STAGES
    data = prepare(out, asked.control)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = list(pool.map(lambda seed: learn(out, data, seed, stages), range(asked.seeds)))
    held_out, rare = ({stage: judged(runs, scenes, stage) for stage in stages[2:]} for scenes in SAMPLES)
    kept = print_shares("held-out combinations after sft", held_out["sft"])
    if asked.control:
        return 0
    print_shares("held-out combinations after rl", held_out["rl"])
    print_shares("rare effect after sft", rare["sft"])
    print_shares("rare effect after rl", rare["rl"])
    return 0 if print_gains(rare, held_out) and kept else 1


def prepare(out: Path, control: bool) -> Path:
    """Draw the world, build the dataset and its latents, and make the toy models. Return the dataset."""
    drawn, data = out / "drawn", out / "data"
    run("make_shapes", drawn)
    source = drawn / "clips.csv"
    if control:
        source = shuffle_scenes(source)
    units = ("--test", "0.1", "--split-by", "clip", "--unit-size", "16", "--units-per-shard", "8")
    run("build_nsp", "--source", source, "--out", data, "--judge", "given", *units)
    run("make_tiny", "--data", data, "--out", out / "tiny", "--kind", "shapes")
    run("encode_latents", "--data", data, "--ltx", out / "tiny" / "ltx", *SIZE)
    return data


def shuffle_scenes(source: Path) -> Path:
    """Write a table beside `source` in which each clip has the scene of another."""
    with source.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    scenes = [row["scene"] for row in rows]
    random.Random(0).shuffle(scenes)
    shuffled = source.with_name("shuffled.csv")
    with shuffled.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0].keys())
        table.writeheader()
        table.writerows({**row, "scene": scene} for row, scene in zip(rows, scenes, strict=True))
    return shuffled


def learn(out: Path, data: Path, seed: int, stages: tuple[str, ...]) -> Path:
    """Train the stages with a seed, and evaluate those after the first two. Return the folder of the run."""
    folder = out / f"run-{seed}"
    tiny = ("--qwen", out / "tiny" / "qwen", "--ltx", out / "tiny" / "ltx")
    for stage in stages:
        where = ("--data", data, "--out", folder, *tiny)
        run("train", "--stage", stage, "--recipe", "shapes", *where, "--seed", seed, "--resume")
    models = [part for stage in stages[2:] for part in ("--model", f"{stage}={_checkpoint(folder / stage)}")]
    for scenes, samples in SAMPLES.items():
        texts = ("--scenes", out / "drawn" / f"{scenes}.txt", "--out", evaluated(folder, scenes))
        amount = ("--samples", samples, "--batch", 16, "--judge-with", "shapes")
        run("evaluate", *models, *tiny, *texts, *SAMPLING, *amount)
    return folder


def judged(runs: list[Path], scenes: str, stage: str) -> list[Video]:
    """Return the judged videos that a stage made of the scenes, those of all runs together."""
    places = [evaluated(folder, scenes) / stage / "items.jsonl" for folder in runs]
    return [video for seed, place in enumerate(places) for video in read_items(place, seed)]


def evaluated(folder: Path, scenes: str) -> Path:
    """Return the folder of an evaluation of a run."""
    return folder.with_name(f"{folder.name}-{scenes}")


def _checkpoint(stage: Path) -> Path:
    return max((stage / "checkpoints").glob("step-*"), key=lambda path: int(path.name.partition("-")[2]))


def print_shares(what: str, videos: list[Video]) -> bool:
    """Print the share of each attribute. Return whether those of the held-out combinations are high enough."""
    print(f"\n{what}: {len(videos):,} videos\n{'':<8}{'right':>8}{'95 % interval':>18}{'chance':>9}")
    kept = True
    for name in (*ATTRIBUTES, ALL):
        mean, low, high = share(videos, name)
        print(f"{name:<8}{mean:8.1%}{low:10.1%} – {high:.1%}{CHANCE[name]:9.1%}")
        kept = kept and mean >= (LEAST_ALL if name == ALL else LEAST)
    return kept


def print_gains(rare: dict[str, list[Video]], held_out: dict[str, list[Video]]) -> bool:
    """Print what rl changed. Return whether the rare attribute rose enough, and the others did not fall too far.

    The motion of held-out scenes is printed alone: it is the attribute that rl changes.
    """
    print(f"\nwhat rl changed\n{'':<18}{'points':>8}{'95 % interval':>18}")
    kept = True
    for scenes, found in (("rare", rare), ("held out", held_out)):
        for name in ATTRIBUTES:
            mean, low, high = gain(found["sft"], found["rl"], name)
            print(f"{scenes:<10}{name:<8}{100 * mean:8.1f}{100 * low:10.1f} – {100 * high:.1f}")
            if name != "motion":
                kept = kept and mean >= MOST_LOSS
            elif scenes == "rare":
                kept = kept and mean >= LEAST_GAIN and low > 0
    return kept


if __name__ == "__main__":
    sys.exit(main())

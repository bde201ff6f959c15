"""How fast the stages of training are at the published size, on one GPU, with random weights.

Measured: a whole optimizer step of the recipes, with Prodigy, averaged weights, gradient clipping and selective
activation checkpointing, from one micro-batch without accumulation, with and without compilation. The stages are the
connector stage, on images of 512×512, and fine-tuning, which is like the generator stages, on clips of 65 frames of
832×480. Texts have 128 tokens, and latents are in memory; preparing them, one micro-batch ahead, is part of a step.

Compared with: a step of the connector stage in which text and queries pass through the language model as one sequence,
unpadded and padded to 1,024 tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import click

from benchmarks.gpu.apart import Figures, figures_of
from benchmarks.gpu.case import Case, recipe


def cases() -> list[Case]:
    """Return the cases, the most important first, so that they are measured if time runs out."""
    images, clips = (recipe(stage).data.micro_batch for stage in ("connector", "sft"))
    return [
        Case("connector", "once", False, images),
        Case("connector", "plain", False, images),
        Case("sft", "once", False, clips),
        Case("connector", "once", True, images),
        Case("sft", "once", True, clips),
        Case("connector", "padded", False, images),
    ]


def measure(wanted: Sequence[Case], ask: Callable[[Case], Figures]) -> Iterator[list[Figures]]:
    """Yield all figures so far, after each case. If a case does not fit, try half its micro-batch next."""
    done: list[Figures] = []
    for case in wanted:
        trying = case
        done.append(ask(trying))
        yield done
        while done[-1].get("fits") is False and trying.micro_batch > 1:
            trying = replace(trying, micro_batch=trying.micro_batch // 2)
            done.append(ask(trying))
            yield done


def gains(figures: Sequence[Figures]) -> dict[str, float]:
    """Return the speed-up of the connector stage by reading the text once: its samples per second over the others'."""
    speed = {
        (each["reading"], each["compiled"]): each["samples_per_second"]
        for each in figures
        if each["stage"] == "connector" and each.get("fits")
    }
    return {
        f"over {reading}{', compiled' if compiled else ''}": speed["once", compiled] / speed[reading, compiled]
        for compiled in (False, True)
        for reading in ("plain", "padded")
        if ("once", compiled) in speed and (reading, compiled) in speed
    }


def table(figures: Sequence[Figures]) -> str:
    """Return the figures as a table in Markdown."""
    head = ["stage", "text read", "compiled", "micro-batch", "s a step (range)", "samples/s", "MFU", "peak memory"]
    rows = [head, ["---"] * len(head), *map(_row, figures)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *(f"{gain:.2f} times the samples {name}" for name, gain in gains(figures).items())])


def _row(each: Figures) -> list[str]:
    compiled = f"yes ({each.get('graphs', '?')} graphs)" if each["compiled"] else "no"
    case = [each["stage"], each["reading"], compiled, str(each["micro_batch"])]
    if not each.get("fits"):
        return [*case, each.get("failure", "does not fit"), "", "", ""]
    low, high = min(each["rounds"]), max(each["rounds"])
    mfu = f"{each['mfu']:.1%}" if "mfu" in each else ""
    memory = f"{each['peak_memory_gb']:.1f} GB" if "peak_memory_gb" in each else ""
    speed = f"{each['samples_per_second']:.2f}"
    return [*case, f"{each['seconds']:.3f} ({low:.3f}–{high:.3f})", speed, mfu, memory]


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where the figures go, as JSON.")
@click.option("--toy", is_flag=True, help="Small models, which a CPU can do: whether it runs, not how fast.")
def main(out: Path, toy: bool) -> None:
    figures: list[Figures] = []
    for figures in measure(cases(), lambda case: figures_of("benchmarks.gpu.case", asdict(case), toy)):
        click.echo(json.dumps(figures[-1]))
        out.write_text(json.dumps({"steps": figures, "gains": gains(figures)}, indent=2) + "\n", encoding="utf-8")
    click.echo(table(figures))


if __name__ == "__main__":
    main()

"""`nextscene encode`: computation of the latents of a dataset, once instead of in every epoch of training.

Tested in tests/training/data/test_latent_cache.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from nextscene.pipelines.cli import startup  # noqa: F401  before all that may be missing, and all that takes its time

# isort: split
import re
import time
from typing import TYPE_CHECKING

import click

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage, split_query
from nextscene.common.text import many
from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.command import Command
from nextscene.pipelines.cli.exit_codes import GoOn, handle_errors
from nextscene.pipelines.cli.paths import check_dataset, check_out, located
from nextscene.pipelines.cli.progress import ProgressLine
from nextscene.pipelines.cli.shared_options import data_option, ltx_option
from nextscene.pipelines.cli.shell import command
from nextscene.shards.format.folder_mark import LATENTS
from nextscene.shards.format.manifest import Manifest
from nextscene.training.data.latent_cache import LatentEncoding, latents_folder
from nextscene.training.distributed.torchrun_env import rank_and_world
from nextscene.training.model.hub import VAE, model_folder
from nextscene.training.model.model_folders import check_vae, check_weights

if TYPE_CHECKING:
    import torch

_READ = "nextscene.shards.loading.latent_dataset.LatentDataset reads them"
_GO_ON = GoOn("the shards that are finished are kept")


def _width_and_height(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a width and a height; write it as 832x480")
    return int(found[1]), int(found[2])


@click.command(cls=Command)
@data_option
@ltx_option
@click.option(
    "--latents",
    "--out",
    "out",
    help="Folder of the latents, for a dataset that cannot be written to; give it to train as --latents.  [default:"
    " below --data, where training finds them]",
)
@click.option(
    "--max-frames", type=int, default=65, show_default=True, help="Most frames of a clip, 8k + 1; the rest is cut off."
)
@click.option(
    "--size",
    default="832x480",
    show_default=True,
    callback=_width_and_height,
    help="Size that videos are scaled to; images keep theirs.",
)
@click.option("--batch", type=click.IntRange(1), default=4, show_default=True, help="Clips encoded at once.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    help="Device to encode on.  [default: cuda, or cpu if there is no GPU]",
)
@handle_errors(_GO_ON)
def main(
    data: str, ltx: Path, out: str | None, max_frames: int, size: tuple[int, int], batch: int, device: str | None
) -> None:
    """Compute the latents of a dataset, for faster training.

    They are written as shards parallel to those of the dataset. The run may be stopped or killed at any moment; the
    same command continues it. Under torchrun, or wherever RANK and WORLD_SIZE are set, the processes share the shards,
    and the one that finishes last publishes the latents.

    Exit codes: 0 done, 1 a clip or a file is damaged, 2 wrong usage, 3 stopped by storage, network or memory, or by
    SIGTERM, SIGHUP or SIGUSR1, 130 by Ctrl-C.
    """
    _encode(data, ltx, out, max_frames, size, batch, device)


def _encode(
    data: str, ltx: Path, out: str | None, max_frames: int, size: tuple[int, int], batch: int, device: str | None
) -> None:
    located("--data", data)
    if out is not None:
        check_out(out, LATENTS, data, but=latents_folder(data))
    rank, world = rank_and_world()
    check_dataset("--data", data)
    ltx = model_folder(ltx, VAE)
    check_vae(ltx)
    check_weights(ltx / "vae")
    encoding = LatentEncoding.for_vae(ltx / "vae", max_frames, size)
    place = Storage.at(encoding.location(data) if out is None else out)
    import torch  # imported late, like all modules that import torch, so that --help is fast

    from nextscene.training.data.encode_latents import LatentEncoder
    from nextscene.training.model.pretrained import open_vae

    begun = time.monotonic()
    encoder = LatentEncoder(data, place, encoding, rank, world)
    encoder.check(check_vae(ltx))
    vae = open_vae(ltx, torch.float32).to(_device(device))  # bfloat16 is less precise than what is stored
    watch = ProgressLine("encoding")
    if rank == 0:
        watch.begin(encoder.planned, encoder.done)
    try:
        for clips in encoder.run(vae, batch):
            if rank == 0:
                watch.advance(clips)
                watch.tick()
    finally:
        watch.end()
    manifest = encoder.finish()
    if manifest is None:
        console.out.print(f"process {rank} of {world} is done; the set is published when all are")
    else:
        _print_summary(manifest, place, time.monotonic() - begun)
        train = command("train", "--data", split_query(data)[0])
        found = f"{train} …, which finds them there" if out is None else f"{train} --latents {split_query(out)[0]} …"
        console.out.print(f"next      {found}", markup=False)


def _device(wanted: str | None) -> torch.device:
    import torch

    from nextscene.training.distributed.process_group import local_device

    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no GPU can be used here")
    return torch.device("cpu") if wanted == "cpu" else local_device()


def _print_summary(manifest: Manifest, place: Storage, seconds: float) -> None:
    clips, size = (sum(getattr(shard, name) for shard in manifest.shards) for name in ("count", "bytes"))
    console.out.print(f"latents   {many(clips, 'clip')} in {many(len(manifest.shards), 'shard')}, {size / 1e6:,.1f} MB")
    console.out.print(f"time      {seconds:,.1f} s")
    console.out.print(f"set       {place.display_uri}", markup=False)


if __name__ == "__main__":
    main()

"""Flags that several commands have in the same words."""

from __future__ import annotations

import click

from nextscene.pipelines.cli.paths import EXISTING_FILE, LocalPath

data_option = click.option("--data", help="The dataset; a path or s3://…", required=True)
ray_address_option = click.option(
    "--ray-address", help="Address of a running Ray cluster.  [default: RAY_ADDRESS, else Ray is started here]"
)
ltx_option = click.option(
    "--ltx",
    type=LocalPath(),
    required=True,
    help="LTX-Video 0.9.0: a folder in diffusers' layout, or an id such as Lightricks/LTX-Video.",
)
prices_option = click.option(
    "--prices", type=EXISTING_FILE, help="A TOML file of the judge's prices.  [default: judge/spending/prices.toml]"
)

"""The lengths and sizes of video that a VAE accepts, computed from its configuration alone, without torch.

Tested in tests/training/model/test_latents.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Grid(NamedTuple):
    """The shape of a clip's latents in frames, rows and columns. Each cell of the grid is one token of the sequence."""

    frames: int
    height: int
    width: int

    @property
    def tokens(self) -> int:
        """Number of tokens of the sequence."""
        return self.frames * self.height * self.width


class Ratios(NamedTuple):
    """The compression ratios of the VAE: frames and pixels of a side for each latent; 8 and 32 for LTX-Video 0.9.0."""

    temporal: int
    spatial: int

    @staticmethod
    def of(vae: Any) -> Ratios:
        """Return the ratios of an AutoencoderKLLTXVideo."""
        return Ratios(int(vae.temporal_compression_ratio), int(vae.spatial_compression_ratio))

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> Ratios:
        """Return the ratios for a VAE's configuration, computed as in diffusers.

        Raise ValueError if it is not the configuration of such a VAE.
        """
        try:
            halved = sum(map(bool, config["spatio_temporal_scaling"]))
            temporal = config.get("temporal_compression_ratio") or config["patch_size_t"] * 2**halved
            spatial = config.get("spatial_compression_ratio") or config["patch_size"] * 2**halved
            return Ratios(int(temporal), int(spatial))
        except (KeyError, TypeError) as error:
            raise ValueError(f"its configuration lacks {error}") from error

    def grid(self, frames: int, height: int, width: int) -> Grid:
        """Return the latent grid of a clip of `frames` frames of `width`×`height` pixels.

        Raise ValueError for a clip that the VAE could encode, but would decode at another length or size.
        """
        if frames < 1 or (frames - 1) % self.temporal:
            near = _around(frames - 1, self.temporal, 0)
            raise ValueError(
                f"{frames} frames are not of the form {self.temporal}k + 1; the nearest are"
                f" {' and '.join(str(count + 1) for count in near)}"
            )
        if height < 1 or width < 1 or height % self.spatial or width % self.spatial:
            widths, heights = (_around(side, self.spatial, self.spatial) for side in (width, height))
            sizes = dict.fromkeys([f"{widths[0]}×{heights[0]}", f"{widths[-1]}×{heights[-1]}"])
            raise ValueError(
                f"{width}×{height} pixels are not multiples of {self.spatial}; the nearest are {' and '.join(sizes)}"
            )
        return Grid((frames - 1) // self.temporal + 1, height // self.spatial, width // self.spatial)

    def clip(self, grid: Grid) -> tuple[int, int, int]:
        """Return frames, height and width in pixels of the clip with these latents."""
        return (grid.frames - 1) * self.temporal + 1, grid.height * self.spatial, grid.width * self.spatial


def _around(number: int, of: int, least: int) -> list[int]:
    """Return the nearest multiples of `of` below and above a number, but not below `least`.

    Return only the number itself if it is such a multiple.
    """
    below = max(least, number // of * of)
    above = max(least, -(-number // of) * of)
    return sorted({below, above})

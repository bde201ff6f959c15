"""The model whole: texts in, the velocity of noisy latents out."""

from __future__ import annotations

import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor, nn
from transformers import Qwen2_5_VLTextModel

from nextscene.training.model.bridge import Bridge
from nextscene.training.model.grid import Grid, Ratios
from nextscene.training.model.language import TokenBatch, encode_queries, encode_text


class UnifiedModel(nn.Module):
    """`language` is always frozen. The three parts are called, and sharded, one by one.

    `condition` is what LTX takes in place of its own text encoder's output; `velocity` is LTX itself, which computes in
    `dtype`, whatever its parameters are kept in.
    """

    def __init__(
        self,
        language: Qwen2_5_VLTextModel,
        bridge: Bridge,
        transformer: LTXVideoTransformer3DModel,
        ratios: Ratios,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.language = language.requires_grad_(requires_grad=False).eval()
        self.bridge = bridge
        self.transformer = transformer
        self.ratios = ratios
        self.dtype = dtype

    def condition(self, words: TokenBatch) -> Tensor:
        """[B, queries, caption channels], float32."""
        prefix = encode_text(self.language, words)
        states = encode_queries(self.language, prefix, self.bridge.queries(len(words.ids)))
        condition: Tensor = self.bridge.connector(states)
        return condition

    def velocity(self, tokens: Tensor, sigma: Tensor, condition: Tensor, grid: Grid, fps: Tensor) -> Tensor:
        """[B, S, C] in float32, for tokens [B, S, C] at σ [B] that show clips of `fps` [B] frames a second.

        All queries are valid, so nothing is masked. The timestep stays a float: 1,000 σ.
        """
        predicted: Tensor = self.transformer(
            hidden_states=tokens.to(self.dtype),
            encoder_hidden_states=condition.to(self.dtype),
            timestep=1000 * sigma,
            encoder_attention_mask=None,
            video_coords=coordinates(grid, self.ratios, fps),
            return_dict=False,
        )[0]
        return predicted.float()

    def forward(self, words: TokenBatch, tokens: Tensor, sigma: Tensor, grid: Grid, fps: Tensor) -> Tensor:
        """One micro-batch of training: `velocity` under `condition`."""
        return self.velocity(tokens, sigma, self.condition(words), grid, fps)


def coordinates(grid: Grid, ratios: Ratios, fps: Tensor) -> Tensor:
    """[B, 3, S]: where each token lies, in seconds and in pixels down and across, as LTX's rotary embedding takes them.

    The clip's own frame rate decides how fast its time goes; clips of a batch may differ in it.
    """
    axes = [torch.arange(side, dtype=torch.float32, device=fps.device) for side in grid]
    frame, row, column = (axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij"))
    seconds = frame * (ratios.temporal / fps.float()[:, None])
    pixels = torch.stack([row, column]) * ratios.spatial
    return torch.cat([seconds[:, None], pixels.expand(len(fps), -1, -1)], dim=1)

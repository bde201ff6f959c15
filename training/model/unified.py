"""The complete model: from texts and noisy latents to the velocity of the latents."""

from __future__ import annotations

import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor, nn
from transformers import Qwen2_5_VLTextModel

from nextscene.training.model.bridge import Bridge
from nextscene.training.model.grid import Grid, Ratios
from nextscene.training.model.language import TokenBatch, encode_queries, encode_text


class UnifiedModel(nn.Module):
    """Qwen, the bridge and LTX. `language` is always frozen. The parts are called, and sharded, one by one.

    `condition` replaces the output of LTX's own text encoder. `velocity` is LTX, which computes in `dtype`, whatever
    the precision of its parameters (mixed precision).
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

    @property
    def trains_transformer(self) -> bool:
        """True if any parameter of the transformer is trained."""
        return any(parameter.requires_grad for parameter in self.transformer.parameters())

    def condition(self, text_tokens: TokenBatch) -> Tensor:
        """Return the condition of texts, [B, queries, caption channels] in float32."""
        prefix = encode_text(self.language, text_tokens)
        states = encode_queries(self.language, prefix, self.bridge.queries(len(text_tokens.ids)))
        condition: Tensor = self.bridge.connector(states)
        return condition

    def velocity(self, tokens: Tensor, sigma: Tensor, condition: Tensor, coords: Tensor) -> Tensor:
        """Return the velocity [B, S, C] in float32, for tokens [B, S, C] at σ [B] with the `coordinates` [B, 3, S].

        All queries are valid, so nothing is masked. The timestep is the float 1,000 σ.
        """
        predicted: Tensor = self.transformer(
            hidden_states=tokens.to(self.dtype),
            encoder_hidden_states=condition.to(self.dtype),
            timestep=1000 * sigma,
            encoder_attention_mask=None,
            video_coords=coords,
            return_dict=False,
        )[0]
        return predicted.float()

    def forward(self, text_tokens: TokenBatch, tokens: Tensor, sigma: Tensor, coords: Tensor) -> Tensor:
        """Return the velocity of a micro-batch under the condition of its texts."""
        return self.velocity(tokens, sigma, self.condition(text_tokens), coords)


def coordinates(grid: Grid, ratios: Ratios, fps: Tensor) -> Tensor:
    """Return the place of each token in seconds and in pixels down and across, [B, 3, S], for LTX's rotary embedding.

    `fps` [B] is the frame rate of each clip.
    """
    axes = [torch.arange(side, dtype=torch.float32, device=fps.device) for side in grid]
    frame, row, column = (axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij"))
    seconds = frame * (ratios.temporal / fps.float()[:, None])
    pixels = torch.stack([row, column]) * ratios.spatial
    return torch.cat([seconds[:, None], pixels.expand(len(fps), -1, -1)], dim=1)

"""The pipeline of an export, for diffusers: a copy of this file is `pipeline.py` there.

It needs torch, diffusers and transformers, and nothing of the repository that it comes from. Texts are read here; the
sampler and the decoder are those of diffusers' LTXPipeline.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    ModelMixin,
)
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLTextModel

TEXT = "{text}"
"""The place of the text in a template."""


def chat_tokens(tokenizer: Any, template: str, text: str) -> list[int]:
    """Return the tokens of a text in its template, as a user's turn in the tokenizer's chat template."""
    text = text.replace("<|", "< |")  # so that text from data cannot start a turn of the chat
    turns = [{"role": "user", "content": template.replace(TEXT, text)}]
    chat = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(chat, add_special_tokens=False)["input_ids"])


def prompt_tokens(tokenizer: Any, template: str, text: str, most: int) -> tuple[list[int], bool]:
    """Return the tokens of a text in its template, at most `most`, and True if its end was cut off for that.

    The template alone must not be longer.
    """
    ids = chat_tokens(tokenizer, template, text)
    is_cut = len(ids) > most
    while len(ids) > most:
        kept = tokenizer(text, add_special_tokens=False)["input_ids"][: most - len(ids)]
        text = tokenizer.decode(kept).rstrip("\ufffd")  # the remains of a character that was cut between its bytes
        ids = chat_tokens(tokenizer, template, text)
    return ids, is_cut


class NextScenePipeline(DiffusionPipeline):  # type: ignore[misc]
    """Videos of what happens after a scene.

    `bridge` holds the queries, which the language model reads after the text, and the connector, which turns their
    states into the condition of the transformer. `templates` maps the name of each form of prompt to its template.
    `max_prompt_tokens` is the length that a prompt is cut to, and `sampling` has the defaults of a call.
    """

    model_cpu_offload_seq = "language_model->transformer->vae"
    _exclude_from_cpu_offload = ["bridge"]  # noqa: RUF012 – diffusers reads it from the class

    def __init__(
        self,
        scheduler: FlowMatchEulerDiscreteScheduler,
        vae: AutoencoderKLLTXVideo,
        transformer: LTXVideoTransformer3DModel,
        language_model: Qwen2_5_VLTextModel,
        tokenizer: PreTrainedTokenizerBase,
        bridge: ModelMixin,
        templates: dict[str, str] | None = None,
        max_prompt_tokens: int = 768,
        sampling: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            scheduler=scheduler,
            vae=vae,
            transformer=transformer,
            language_model=language_model,
            tokenizer=tokenizer,
            bridge=bridge,
        )
        self.register_to_config(
            templates=dict(templates or {}), max_prompt_tokens=max_prompt_tokens, sampling=dict(sampling or {})
        )

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        num_frames: int | None = None,
        width: int | None = None,
        height: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        frame_rate: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        seed: int | None = None,
        form: str = "nsp",
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., Any] | None = None,
    ) -> Any:
        """Return a video for each scene, as LTXPipeline does: `.frames`, or a tuple without `return_dict`.

        `prompt` is the text of a scene, or a sequence of them. `seed` is the seed of the first video, and those of the
        others count up from it; it takes the place of `generator`. `form` names the template: `nsp` for what happens
        after the text, `t2v` for what the text says. Without guidance, at a `guidance_scale` of 1, the empty scene is
        not read. What is None is as the model was trained, or as the export says.
        """
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        if seed is not None:
            generator = [torch.Generator().manual_seed(seed + number) for number in range(len(texts))]
        given = {
            "num_frames": num_frames,
            "width": width,
            "height": height,
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "frame_rate": frame_rate,
        }
        asked = {**self.config.sampling, **{name: value for name, value in given.items() if value is not None}}
        condition = self._condition(texts, form)
        valid = torch.ones(condition.shape[:2], device=condition.device)
        if asked["guidance_scale"] > 1:
            asked |= {
                "negative_prompt_embeds": self._condition([""], form).expand_as(condition),
                "negative_prompt_attention_mask": valid,
            }
        sampler = LTXPipeline(self.scheduler, self.vae, None, None, self.transformer)
        sampler.set_progress_bar_config(**getattr(self, "_progress_bar_config", {}))
        made = sampler(
            prompt_embeds=condition,
            prompt_attention_mask=valid,
            generator=generator,
            output_type=output_type,
            return_dict=return_dict,
            callback_on_step_end=callback_on_step_end,
            **asked,
        )
        self.maybe_free_model_hooks()
        return made

    def _condition(self, texts: Sequence[str], form: str) -> Tensor:
        """Return the condition of texts, [B, queries, caption channels], in the precision of the transformer.

        They are read one by one: without padding, the language model needs no mask.
        """
        return torch.cat([self._connected(text, form) for text in texts]).to(
            self._execution_device, self.transformer.dtype
        )

    def _connected(self, text: str, form: str) -> Tensor:
        ids, _ = prompt_tokens(self.tokenizer, self.config.templates[form], text, self.config.max_prompt_tokens)
        device, table = self._execution_device, self.language_model.get_input_embeddings()
        words = table(torch.tensor([ids], device=table.weight.device)).to(device)
        queries = self.bridge.queries(1).to(device, words.dtype)
        embeddings = torch.cat([words, queries], dim=1)
        positions = torch.arange(embeddings.shape[1], device=device).expand(3, 1, -1)  # M-RoPE's axes, equal for text
        states = self.language_model(inputs_embeds=embeddings, position_ids=positions, use_cache=False)[0]
        connected: Tensor = self.bridge.connector(states[:, -queries.shape[1] :].to(self.bridge.device))
        return connected

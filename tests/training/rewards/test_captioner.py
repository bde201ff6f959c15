"""The captioner `qwen`, on a toy of the published layout: what it is shown, and that what it says comes of that."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2_5_VLTextModel,
    Qwen2VLImageProcessorPil,
)

from nextscene.common.errors import UsageError
from nextscene.judge.config import ClaudeConfig
from nextscene.prompts import load
from nextscene.training.rewards.captioner import QwenCaptioner
from nextscene.training.rewards.frames import sampled_images
from tests.training.models import qwen_config
from tests.training.pretrained import make_originals, tokenizer

pytestmark = pytest.mark.slow

SETTINGS = ClaudeConfig(frames=3, frame_height=56)
CPU = torch.device("cpu")
VISION = {"depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With vision tower, head and the tokens of pictures; random, and loud enough to say something."""
    folder = tmp_path_factory.mktemp("qwen")
    words = tokenizer()
    words.add_special_tokens({"additional_special_tokens": ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]})
    words.save_pretrained(folder)
    torch.manual_seed(0)
    ids = {
        f"{name}_token_id": words.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (("image", "image_pad"), ("vision_start", "vision_start"), ("vision_end", "vision_end"))
    }
    config = Qwen2_5_VLConfig(text_config=qwen_config(), vision_config=VISION, **ids)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    return folder


def video(seed: int, frames: int = 9) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(256, (frames, 96, 160, 3), dtype=torch.uint8, generator=random)


def captions(captioner: QwenCaptioner, *videos: torch.Tensor) -> list[str]:
    """What it says of videos that are described together."""
    return captioner([list(sampled_images(one, 16.0, SETTINGS.frames, SETTINGS.frame_height)) for one in videos])


def shown(seed: int) -> list[Any]:
    return [image for _, image in sampled_images(video(seed), 16.0, SETTINGS.frames, SETTINGS.frame_height)]


def asked(qwen: Path, seed: int) -> dict[str, torch.Tensor]:
    """What transformers' own processor makes of the same turn."""
    words = AutoTokenizer.from_pretrained(qwen)
    content: list[dict[str, str]] = []
    for seconds in ("0.00", "0.25", "0.50"):
        content += [{"type": "text", "text": f"{seconds} s:"}, {"type": "image"}]
    content.append({"type": "text", "text": load("caption").text})
    # The template that Qwen publishes, as far as it tells of pictures.
    template = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "{% for part in messages[0]['content'] %}{% if part['type'] == 'image' %}"
        "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
        "<|im_start|>assistant{{ '\n' }}"
    )
    with patch.object(Qwen2_5_VLProcessor, "check_argument_for_proper_class"):  # which wants torchvision, for videos
        processor = Qwen2_5_VLProcessor(Qwen2VLImageProcessorPil(), words, None, chat_template=template)
    text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    return dict(processor(text=[text], images=shown(seed), return_tensors="pt"))


def test_it_says_what_the_model_does_word_by_word_without_a_cache(qwen: Path) -> None:
    captioner = QwenCaptioner(qwen, CPU)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(qwen, dtype=torch.float32).eval()
    words = AutoTokenizer.from_pretrained(qwen)
    turn = asked(qwen, 1)
    begin = turn["input_ids"].shape[1]
    with torch.no_grad():
        for _ in range(128):
            model.model.rope_deltas = None
            following = model(**turn, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
            if following.item() == words.eos_token_id:
                break
            turn["input_ids"] = torch.cat([turn["input_ids"], following], 1)
            turn["attention_mask"] = torch.ones_like(turn["input_ids"])
            turn["mm_token_type_ids"] = torch.nn.functional.pad(turn["mm_token_type_ids"], (0, 1))
    said = words.decode(turn["input_ids"][0, begin:], skip_special_tokens=True)
    assert captions(captioner, video(1)) == [" ".join(said.split())] != [""]


def test_pictures_decide_and_the_same_ones_say_the_same(qwen: Path) -> None:
    captioner = QwenCaptioner(qwen, CPU)
    first, again, other = (captions(captioner, video(seed))[0] for seed in (1, 1, 2))
    assert first == again != other
    assert "\n" not in first


def test_videos_that_are_described_together_are_described_as_each_alone(qwen: Path) -> None:
    """Of different lengths too, so that the turns differ in their tokens and are padded."""
    captioner = QwenCaptioner(qwen, CPU)
    videos = [video(1), video(2), video(3, frames=2), video(4)]
    together = captions(captioner, *videos)
    assert together == [captions(captioner, one)[0] for one in videos]
    assert len(set(together)) == len(videos)


def test_it_shares_the_weights_of_the_trained_model_and_says_the_same(qwen: Path) -> None:
    language = Qwen2_5_VLTextModel.from_pretrained(qwen, dtype=torch.float32).eval()
    sharing, apart = QwenCaptioner(qwen, CPU, language), QwenCaptioner(qwen, CPU)
    own = {value.data_ptr() for value in sharing._model.parameters()} - {v.data_ptr() for v in language.parameters()}
    whole = sum(value.numel() for value in apart._model.parameters())
    assert sum(v.numel() for v in sharing._model.parameters() if v.data_ptr() in own) == whole - sum(
        value.numel() for value in language.parameters()
    )
    assert captions(sharing, video(1), video(2)) == captions(apart, video(1), video(2))
    with torch.no_grad():
        language.embed_tokens.weight.zero_()
    assert captions(sharing, video(1)) != captions(apart, video(1))


def test_weights_in_another_precision_are_not_shared(qwen: Path) -> None:
    language = Qwen2_5_VLTextModel.from_pretrained(qwen, dtype=torch.bfloat16).eval()
    assert captions(QwenCaptioner(qwen, CPU, language), video(1)) == captions(QwenCaptioner(qwen, CPU), video(1))


def test_a_model_that_cannot_see_is_told(tmp_path: Path, qwen: Path) -> None:
    with pytest.raises(UsageError, match="cannot be shown pictures"):
        QwenCaptioner(make_originals(tmp_path).qwen, CPU)
    halved = shutil.copytree(qwen, tmp_path / "halved")
    weights = load_file(halved / "model.safetensors")
    blind = {name: value for name, value in weights.items() if "visual" not in name}
    save_file(blind, halved / "model.safetensors", metadata={"format": "pt"})
    language = Qwen2_5_VLTextModel.from_pretrained(qwen, dtype=torch.float32)
    for shared in (None, language):
        with pytest.raises(UsageError, match=rf"lacks {len(weights) - len(blind)} weights .*visual"):
            QwenCaptioner(halved, CPU, shared)

"""What takes long to import, done once in the process from which all ranks are forked, and for good: no rank looks
through it for garbage."""

from __future__ import annotations

import gc
from importlib import import_module

NAMES = """
torch.distributed.checkpoint torch.distributed.fsdp torch.distributed.tensor pytest hypothesis
diffusers.models.autoencoders.autoencoder_kl_ltx diffusers.models.transformers.transformer_ltx
transformers.models.qwen2_5_vl.modeling_qwen2_5_vl nextscene.training.trainer av pandas
nextscene.judge.spending.cached_client
""".split()

gc.disable()
for name in NAMES:
    import_module(name)
gc.freeze()
gc.enable()

"""Silence of the libraries that load models.

Tested in tests/pipelines/test_train.py.
"""

from __future__ import annotations

from diffusers.utils import logging as of_diffusers
from transformers.utils import logging as of_transformers


def silence_libraries() -> None:
    """Disable the progress bars of diffusers and transformers, and warnings about parts that are left out on purpose.

    Vision tower and head of Qwen2.5-VL are such parts.
    """
    of_diffusers.disable_progress_bar()
    of_transformers.disable_progress_bar()
    of_transformers.set_verbosity_error()

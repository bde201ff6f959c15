"""The API key of this process: checked before use, and redacted from all texts.

Tested in tests/judge/api/test_client.py.
"""

from __future__ import annotations

import os
import re

from nextscene.judge.errors import JudgeUsageError

KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
_ADDRESS = "ANTHROPIC_BASE_URL"
_OTHER_PROVIDERS = ("sk-proj-", "sk-or-", "AKIA", "ASIA", "AIza", "hf_", "gsk_", "xai-")


def check_key(instead: str = "") -> None:
    """Raise JudgeUsageError if this process has no API key, or a key or an address that cannot be valid.

    `instead` is what a command offers without a key, appended to the remedy.
    """
    _check_address()
    secrets = configured_secrets()
    if not secrets:
        raise JudgeUsageError(
            f"the judge claude needs a key for the Claude API, and {KEYS[0]} is not set; set it{instead}"
        )
    for name, secret in secrets.items():
        if secret[0] in "\"'$" or secret[-1] in "\"'":
            raise JudgeUsageError(f"{name} holds quotes or a variable that was not filled in; set it to the key alone")
        if not (secret.isascii() and secret.isprintable() and " " not in secret):
            raise JudgeUsageError(f"{name} holds a space or a letter that no key has; set it to the key alone")
        if secret.startswith(_OTHER_PROVIDERS) and not os.environ.get(_ADDRESS):
            raise JudgeUsageError(f"{name} holds a key of another provider, as it begins; set it to one for Claude")


def _check_address() -> None:
    address = os.environ.get(_ADDRESS, "")
    if address and not re.fullmatch(r"https?://[^/\s]+(/\S*)?", address):
        shown = "…" if "@" in address else address
        raise JudgeUsageError(
            f"{_ADDRESS}={shown} is not an address; write it as https://api.anthropic.com, or unset it"
        )


def redact(text: str) -> str:
    """Return the text without the secrets of this process."""
    for secret in configured_secrets().values():
        text = text.replace(secret, "***")
    return text


def key_name() -> str:
    """Return the name of the variable with the key: the first one if both are set."""
    return next((name for name in KEYS if secret_of(name)), KEYS[0])


def secret_of(name: str) -> str:
    return os.environ.get(name, "").strip()


def configured_secrets() -> dict[str, str]:
    values = {name: secret_of(name) for name in KEYS}
    return {name: value for name, value in values.items() if value}

"""The key of this process for the Claude API: whether it has one, and that none is ever shown."""

from __future__ import annotations

import os

from judge.errors import JudgeMistake

KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")


def check_key() -> None:
    """Raises JudgeMistake where this process has no key for the API, or what cannot be one."""
    secrets = secrets_here()
    if not secrets:
        raise JudgeMistake(
            f"the judge claude needs a key for the Claude API, and {KEYS[0]} is not set; set it, or use --judge film"
            " to build a dataset, --reward.kind retrieval to train"
        )
    for name, secret in secrets.items():
        if not (secret.isascii() and secret.isprintable() and " " not in secret):
            raise JudgeMistake(f"{name} holds a space or a letter that no key has; set it to the key alone")


def redacted(text: str) -> str:
    """The text without the secrets of this process."""
    for secret in secrets_here().values():
        text = text.replace(secret, "***")
    return text


def key_name() -> str:
    """Return the variable that the key is taken from: the first if both are set."""
    return next((name for name in KEYS if secret_of(name)), KEYS[0])


def secret_of(name: str) -> str:
    return os.environ.get(name, "").strip()


def secrets_here() -> dict[str, str]:
    values = {name: secret_of(name) for name in KEYS}
    return {name: value for name, value in values.items() if value}

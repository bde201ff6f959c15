"""The API key and address of a process, compared between processes without revealing either."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass

from nextscene.judge.api.api_key import KEYS, key_name, secret_of

_ADDRESS = "ANTHROPIC_BASE_URL"
_SALT_BYTES = 16


@dataclass(frozen=True)
class ApiIdentity:
    """Salted hashes of the API key and the address of one process."""

    salt: bytes
    key_sha256: str
    address_sha256: str

    @staticmethod
    def current(salt: bytes | None = None) -> ApiIdentity:
        """Return the identity of this process, with a new salt if none is given."""
        salt = salt or secrets.token_bytes(_SALT_BYTES)
        key, address = f"{key_name()}={secret_of(key_name())}", os.environ.get(_ADDRESS, "").strip().rstrip("/")
        return ApiIdentity(salt, _hashed(salt, key), _hashed(salt, address))

    def differences(self) -> list[str]:
        """Return the environment variables that differ in this process."""
        here = ApiIdentity.current(self.salt)
        wrong = ["/".join(KEYS)] if here.key_sha256 != self.key_sha256 else []
        return wrong + ([_ADDRESS] if here.address_sha256 != self.address_sha256 else [])


def _hashed(salt: bytes, text: str) -> str:
    return hashlib.sha256(salt + text.encode()).hexdigest()

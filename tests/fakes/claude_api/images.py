"""The size of a JPEG or PNG, read from its first bytes: pixels are never decoded."""

from __future__ import annotations

import struct

from tests.fakes.claude_api.errors import ServerError

_PNG = b"\x89PNG\r\n\x1a\n"
_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def size(image: bytes) -> tuple[int, int]:
    """Return width and height in pixels. Raise ServerError (400), as the API does, if it is neither JPEG nor PNG."""
    try:
        if image.startswith(_PNG):
            width, height = struct.unpack_from(">II", image, 16)
            return width, height
        if image.startswith(b"\xff\xd8"):
            return _jpeg_size(image)
    except (struct.error, IndexError):
        pass
    raise ServerError(400, "Could not process image")


def _jpeg_size(image: bytes) -> tuple[int, int]:
    at = 2
    while True:
        while image[at + 1] == 0xFF:  # a marker may be preceded by fill bytes
            at += 1
        marker = image[at + 1]
        if marker in _FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", image, at + 5)
            return width, height
        at += 2 if marker in _STANDALONE else 2 + struct.unpack_from(">H", image, at + 2)[0]

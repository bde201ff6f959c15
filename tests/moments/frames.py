"""Frames that say which one they are: a number in large squares, each bit beside its complement, on a moving texture.

A frame is read from a picture of one pixel for 8×8 of its own, which no lossy encoder spoils.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

WIDTH, HEIGHT, CELL = 864, 480, 8
_BITS = 12
_SQUARE = 6  # cells
_LEFT, _TOP = 18, 24  # cells
_DARK, _BRIGHT = 32, 220
_LEAST_CONTRAST = 60.0


def numbered(count: int, first: int = 0) -> Iterator[bytes]:
    """Frames `first`, `first` + 1, … as yuv420p."""
    texture = _texture()
    chroma = bytes([128]) * (WIDTH * HEIGHT // 2)
    for number in range(first, first + count):
        luma = np.roll(texture, (2 * number, 5 * number), (0, 1))
        bits = [number >> place & 1 for place in range(_BITS)]
        for row, values in enumerate((bits, [1 - bit for bit in bits])):
            for column, value in enumerate(values):
                top, left = (_TOP + row * _SQUARE) * CELL, (_LEFT + column * _SQUARE) * CELL
                luma[top : top + _SQUARE * CELL, left : left + _SQUARE * CELL] = _BRIGHT if value else _DARK
        yield luma.tobytes() + chroma


def write_numbered(path: Path, count: int) -> Path:
    """`count` frames as raw video."""
    with path.open("wb") as file:
        for frame in numbered(count):
            file.write(frame)
    return path


def number_of(cells: Picture) -> int | None:
    """The number in a picture of one pixel a cell, whole or cropped evenly at its sides; None if it cannot be read."""
    left = _LEFT - (WIDTH // CELL - cells.shape[1]) // 2
    block = cells[_TOP : _TOP + 2 * _SQUARE, left : left + _BITS * _SQUARE].astype(np.float64)
    squares = block.reshape(2, _SQUARE, _BITS, _SQUARE)[:, 1:-1, :, 1:-1].mean(axis=(1, 3))
    contrast = squares[0] - squares[1]
    if np.abs(contrast).min() < _LEAST_CONTRAST:
        return None
    return sum(1 << place for place in range(_BITS) if contrast[place] > 0)


def in_cells(luma: Picture) -> Picture:
    """A picture of whole cells, made one pixel a cell."""
    height, width = luma.shape
    means = luma.reshape(height // CELL, CELL, width // CELL, CELL).mean(axis=(1, 3))
    return np.asarray(np.rint(means), np.uint8)


def _texture() -> Picture:
    coarse = np.random.default_rng(14).integers(90, 166, (HEIGHT // 16, WIDTH // 16), np.uint8)
    return np.asarray(coarse.repeat(16, 0).repeat(16, 1), np.uint8)

"""Kinds of damage, as functions of a file's bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

PACKET = 188
VIDEO_PID = 0x100
"""The first elementary stream of a transport stream by ffmpeg."""

Damage = Callable[[bytes], bytes]


def media(data: bytes) -> tuple[int, int]:
    """Where the pictures lie: the contents of `mdat` in MP4, all but the first and last twentieth of others."""
    place = data.find(b"mdat")
    if data[4:8] == b"ftyp" and place > 0:
        return place + 4, len(data)
    return len(data) // 20 + 400, len(data) - len(data) // 20


def kinds(name: str) -> dict[str, Damage]:
    """Name of a damage → what it does to a file of that name."""
    of_any: dict[str, Damage] = {
        **{f"truncated at {percent} %": _truncated(percent) for percent in (95, 60, 20)},
        "tail cut by 3,000 bytes": lambda data: data[:-3000],
        **{f"head cut by {percent} %": _beheaded(percent) for percent in (3, 40)},
        **{f"{percent} % zeroed": _zeroed(percent) for percent in (1, 10, 30)},
        **{f"{count} bits flipped": _flipped(count) for count in (1, 10, 100)},
    }
    if not name.endswith(".ts"):
        return of_any
    return of_any | {
        "head cut at a packet": lambda data: data[len(data) // PACKET * 2 // 5 * PACKET :],
        "1 packet lost": _lost(1),
        "20 packets lost": _lost(20),
        "1 % of packets lost": _lost_here_and_there,
        "1 packet twice": _twice(1),
        "30 packets twice": _twice(30),
        "2 packets swapped": _swapped,
        "a block moved": _moved,
    }


def _truncated(percent: int) -> Damage:
    return lambda data: data[: len(data) * percent // 100]


def _beheaded(percent: int) -> Damage:
    return lambda data: data[len(data) * percent // 100 :]


def _zeroed(percent: int) -> Damage:
    def zeroed(data: bytes) -> bytes:
        begin, end = media(data)
        length = (end - begin) * percent // 100
        at = begin + (end - begin) * 45 // 100
        return data[:at] + bytes(length) + data[at + length :]

    return zeroed


def _flipped(count: int) -> Damage:
    def flipped(data: bytes) -> bytes:
        begin, end = media(data)
        changed, chance = bytearray(data), random.Random(count)
        for _ in range(count):
            changed[chance.randrange(begin, end)] ^= 1 << chance.randrange(8)
        return bytes(changed)

    return flipped


def packets(data: bytes) -> list[bytes]:
    return [data[at : at + PACKET] for at in range(0, len(data) - PACKET + 1, PACKET)]


def _inner(these: list[bytes]) -> Iterator[int]:
    """The packets in the second half that carry the middle of a picture: no header of a PES packet, no timing."""
    for i in range(len(these) // 2, len(these)):
        head = these[i]
        if (head[1] & 0x1F) << 8 | head[2] == VIDEO_PID and not head[1] & 0x40 and head[3] & 0x30 == 0x10:
            yield i


def _lost(count: int) -> Damage:
    def lost(data: bytes) -> bytes:
        these = packets(data)
        at = next(_inner(these))
        return b"".join(these[:at] + these[at + count :])

    return lost


def _lost_here_and_there(data: bytes) -> bytes:
    chance = random.Random(1)
    return b"".join(packet for i, packet in enumerate(packets(data)) if i < 50 or chance.random() > 0.01)


def _twice(count: int) -> Damage:
    def twice(data: bytes) -> bytes:
        these = packets(data)
        at = next(_inner(these))
        return b"".join(these[: at + count] + these[at:])

    return twice


def _swapped(data: bytes) -> bytes:
    these = packets(data)
    one, other = [i for i, _ in zip(_inner(these), range(2), strict=False)]
    these[one], these[other] = these[other], these[one]
    return b"".join(these)


def _moved(data: bytes) -> bytes:
    these = packets(data)
    at = next(_inner(these))
    return b"".join(these[:at] + these[at + 40 : at + 80] + these[at : at + 40] + these[at + 80 :])

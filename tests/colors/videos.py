"""The cases of video files, group by group."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.colors.cases import Case, video
from tests.colors.conversion import Tags
from tests.colors.patches import SDR

SD, HD = (848, 480), (1280, 720)
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "0")
X264_RGB = ("-c:v", "libx264rgb", "-preset", "ultrafast", "-qp", "0")
VP9 = ("-c:v", "libvpx-vp9", "-lossless", "1", "-deadline", "realtime", "-cpu-used", "8")
VP8 = ("-c:v", "libvpx", "-b:v", "20M", "-qmin", "0", "-qmax", "1")
AV1 = ("-c:v", "libaom-av1", "-crf", "0", "-cpu-used", "8", "-usage", "realtime")
MPEG2 = ("-c:v", "mpeg2video", "-q:v", "1", "-qmin", "1", "-r", "25")
MPEG4 = ("-c:v", "mpeg4", "-q:v", "1", "-qmin", "1")
MJPEG = ("-c:v", "mjpeg", "-q:v", "1", "-qmin", "1")
FFV1 = ("-c:v", "ffv1", "-level", "3")
PRORES = ("-c:v", "prores_ks", "-qscale:v", "1")
MATRICES = ("bt709", "bt470bg", "smpte170m", "smpte240m", "fcc", "bt2020nc", "ycgco")
MASTERING = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L({}0000,1)"
BT2020 = {"matrix": "bt2020nc", "primaries": "bt2020"}


def x265(*parameters: str) -> tuple[str, ...]:
    joined = ":".join(("lossless=1", "log-level=none", *parameters))
    return ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", joined)


def all_videos() -> Iterator[Case]:
    yield from matrices()
    yield from places()
    yield from untagged()
    yield from codecs()
    yield from primaries()
    yield from hdr()
    yield from motion_jpeg()
    yield from rgb()
    yield from alpha()
    yield from odd()


def matrices() -> Iterator[Case]:
    """Tagged SDR: each at the size by which an untagged one would be read otherwise."""
    for matrix in MATRICES:
        size = SD if matrix == "bt709" else HD
        for full in (False, True):
            tags, end = Tags(matrix, "bt709", "bt709", full), f"{matrix}-{'full' if full else 'limited'}"
            for suffix in ("mp4", "mkv", "ts", "mov"):
                yield video("matrix", f"h264-{end}.{suffix}", X264, tags, size=size)
            if matrix in ("bt709", "smpte170m", "bt2020nc"):
                for suffix in ("mp4", "mkv", "ts"):
                    yield video("matrix", f"hevc-{end}.{suffix}", x265(), tags, size=size)
            if matrix in ("bt709", "bt470bg", "smpte170m", "smpte240m", "bt2020nc"):
                yield video("matrix", f"vp9-{end}.webm", VP9, tags, size=size)
                yield video("matrix", f"av1-{end}.mkv", AV1, tags, size=size)
                if not full:
                    yield video("matrix", f"ffv1-{end}.mkv", FFV1, tags, size=size)
        tags = Tags(matrix, "bt709", "bt709", False)
        if matrix in ("bt709", "smpte170m", "smpte240m", "fcc"):
            for suffix in ("ts", "mkv", "mpg"):
                yield video("matrix", f"mpeg2-{matrix}.{suffix}", MPEG2, tags, size=size, unsaid=["range"])
        if matrix in ("bt709", "smpte170m", "bt2020nc"):
            yield video("matrix", f"prores-{matrix}.mov", PRORES, tags, "yuv422p10le", size=size, unsaid=["range"])
    for full in (False, True):
        only = Tags("bt709", full=full)
        yield video("matrix", f"h264-only-matrix-{'full' if full else 'limited'}.mp4", X264, only, size=SD)
        tags = Tags("smpte170m", full=full)
        name = f"h264-444-10-{'full' if full else 'limited'}.mkv"
        yield video("matrix", name, X264, tags, "yuv444p10le")
    gray = np.repeat(SDR.mean(axis=1, keepdims=True), 3, axis=1)
    for full in (False, True):
        tags = Tags("bt709", full=full)
        yield video("matrix", f"gray-{full}.mp4", X264, tags, "gray", rgb=gray, unsaid=["matrix"])


def places() -> Iterator[Case]:
    """Tags that only the stream has, and a stream and a container that say different things."""
    tags = Tags("bt709", "bt709", "bt709", False)
    yield video("places", "stream-only.mp4", X264, tags, size=SD, changed=_without_colr)
    yield video("places", "stream-only.mov", X264, tags, size=SD, changed=_without_colr)
    for codec, encoder in (("h264", X264), ("hevc", x265())):
        tags = Tags("smpte170m", "bt709", "bt709", False)
        yield video(
            "places", f"{codec}-stream-601-container-709.mp4", encoder, tags, noted=True, changed=_container_709
        )


def _without_colr(data: bytes) -> bytes:
    return data.replace(b"colrnclx", b"freenclx")


def _container_709(data: bytes) -> bytes:
    """An MP4 whose `colr` says BT.709, whatever the stream says. The decoder believes the stream."""
    place = data.index(b"colrnclx") + 8
    return data[:place] + bytes([0, 1, 0, 1, 0, 1]) + data[place + 6 :]


def untagged() -> Iterator[Case]:
    none = Tags()
    for name, size in (("sd", SD), ("hd", HD), ("1278", (1278, 718)), ("portrait", (720, 1280))):
        yield video("untagged", f"h264-{name}.mp4", X264, none, size=size)
    for name, size in (("sd", SD), ("hd", HD)):
        yield video("untagged", f"h264-{name}.ts", X264, none, size=size)
        yield video("untagged", f"hevc-{name}.mkv", x265(), none, size=size)
        yield video("untagged", f"mpeg2-{name}.mpg", MPEG2, none, size=size)
        yield video("untagged", f"mpeg4-{name}.avi", MPEG4, none, size=size)
        yield video("untagged", f"mpeg4-{name}.mp4", MPEG4, none, size=size)
        yield video("untagged", f"vp9-{name}.webm", VP9, none, size=size)
        yield video("untagged", f"vp8-{name}.webm", VP8, none, size=size, unsaid=["matrix"], noted=True)
        yield video("untagged", f"av1-{name}.mp4", AV1, none, size=size)
        yield video("untagged", f"ffv1-{name}.mkv", FFV1, none, size=size)
        yield video(
            "untagged",
            f"theora-{name}.ogv",
            ("-c:v", "libtheora", "-q:v", "10"),
            none,
            size=size,
            unsaid=["matrix", "primaries", "transfer"],
            noted=True,
        )
        yield video("untagged", f"full-{name}.mp4", X264, Tags(full=True), "yuvj420p", size=size)
        yield video("untagged", f"only-primaries-{name}.mp4", X264, Tags("", "bt709", "bt709"), size=size)
        yield video("untagged", f"only-2020-{name}.mp4", x265(), Tags("", "bt2020"), "yuv420p10le", size=size)
        yield video("untagged", f"raw-{name}.avi", ("-c:v", "rawvideo"), none, size=size)
        yield video("untagged", f"utvideo-{name}.mkv", ("-c:v", "utvideo"), none, size=size, unsaid=["matrix"])
        yield video("untagged", f"prores-{name}.mov", PRORES, none, "yuv422p10le", size=size, unsaid=["range"])
    for name, coded, displayed in (
        ("960-shown-1280", (960, 720), (1280, 720)),
        ("1280-shown-640", (1280, 720), (640, 720)),
        ("720-shown-1024", (720, 576), (1024, 576)),
    ):
        yield video(
            "untagged",
            f"h264-{name}.mp4",
            (*X264, "-aspect", f"{displayed[0]}:{displayed[1]}"),
            none,
            size=coded,
            shown_size=displayed,
        )


def codecs() -> Iterator[Case]:
    """Untagged video of further codecs, whose decoders may have a mind of their own."""
    none, any_range = Tags(), ["range"]
    for name, size in (("sd", SD), ("hd", HD)):
        yield video(
            "codecs",
            f"mpeg1-{name}.mpg",
            ("-c:v", "mpeg1video", "-q:v", "1", "-qmin", "1", "-r", "25"),
            none,
            size=size,
            unsaid=any_range,
        )
        yield video("codecs", f"wmv2-{name}.wmv", ("-c:v", "wmv2", "-q:v", "1", "-qmin", "1"), none, size=size)
        yield video("codecs", f"flv1-{name}.flv", ("-c:v", "flv1", "-q:v", "1", "-qmin", "1"), none, size=size)
        yield video("codecs", f"huffyuv-{name}.avi", ("-c:v", "huffyuv"), none, "yuv422p", size=size)
        yield video("codecs", f"v210-{name}.mov", ("-c:v", "v210"), none, "yuv422p10le", size=size)
        yield video("codecs", f"cfhd-{name}.mov", ("-c:v", "cfhd"), none, "yuv422p10le", size=size)
        yield video("codecs", f"jpeg2000-{name}.mov", ("-c:v", "jpeg2000", "-pred", "1"), none, "yuv422p", size=size)
        yield video(
            "codecs", f"magicyuv-{name}.mkv", ("-c:v", "magicyuv"), none, "yuv422p", size=size, unsaid=["matrix"]
        )
        yield video(
            "codecs",
            f"mpeg2-{name}.mxf",
            ("-c:v", "mpeg2video", "-q:v", "1", "-qmin", "1", "-r", "25"),
            none,
            size=size,
            unsaid=any_range,
        )
    yield video("codecs", "dnxhr.mov", ("-c:v", "dnxhd", "-profile:v", "dnxhr_hq"), none, "yuv422p", unsaid=["matrix"])
    yield video("codecs", "dv.avi", ("-c:v", "dvvideo", "-r", "25"), none, size=(720, 576), noted=True)
    yield video(
        "codecs", "jpeg2000-rgb.mov", ("-c:v", "jpeg2000", "-pred", "1"), none, "rgb24", unsaid=["matrix", "range"]
    )


def primaries() -> Iterator[Case]:
    for name in ("bt470bg", "smpte170m", "bt2020", "smpte432", "smpte431"):
        matrix = {"bt2020": "bt2020nc", "bt470bg": "bt470bg", "smpte170m": "smpte170m"}.get(name, "bt709")
        for suffix in ("mp4", "mkv", "ts"):
            tags = Tags(matrix, name, "bt709", False)
            yield video("primaries", f"h264-{name}.{suffix}", X264, tags)
        yield video("primaries", f"hevc-10-{name}.mp4", x265(), Tags(matrix, name, "", False), "yuv420p10le")
        yield video("primaries", f"vp9-{name}.webm", VP9, Tags(matrix, name, "bt709", False))
    for transfer in ("bt2020-10", "bt2020-12"):
        tags = Tags("bt2020nc", "bt2020", transfer, False)
        yield video("primaries", f"hevc-2020-{transfer}.mp4", x265(), tags, "yuv420p10le")
    for transfer in ("smpte170m", "smpte240m", "iec61966-2-1", "iec61966-2-4", "bt2020-10", "bt2020-12"):
        yield video("transfer", f"h264-{transfer}.mp4", X264, Tags("bt709", "bt709", transfer, False))
        p3 = Tags("bt709", "smpte432", transfer, False)
        yield video("transfer", f"h264-p3-{transfer}.mp4", X264, p3)
    yield video(
        "primaries", "prores-p3.mov", PRORES, Tags("bt709", "smpte432", "bt709", False), "yuv422p10le", unsaid=["range"]
    )


def hdr() -> Iterator[Case]:
    pq, hlg = Tags(**BT2020, transfer="smpte2084", full=False), Tags(**BT2020, transfer="arib-std-b67", full=False)
    ten = "yuv420p10le"
    for suffix in ("mp4", "mkv", "ts", "mov"):
        yield video("pq", f"hevc-bare.{suffix}", x265(), pq, ten)
        both = x265(MASTERING.format(1000), "max-cll=1000,400", "hdr10=1")
        tags = Tags(**BT2020, transfer="smpte2084", full=False, max_cll=1000, mastering_max=1000)
        yield video("pq", f"hevc-1000.{suffix}", both, tags, ten)
        bright = x265(MASTERING.format(4000), "hdr10=1")
        tags = Tags(**BT2020, transfer="smpte2084", full=False, mastering_max=4000)
        yield video("pq", f"hevc-mastered-4000.{suffix}", bright, tags, ten)
        yield video("hlg", f"hevc-hlg.{suffix}", x265(), hlg, ten)
    for suffix in ("mp4", "ts"):
        # A receiver that does not know HLG takes the transfer of BT.2020; a message (SEI 147) says what it really is.
        sdr_too = Tags(**BT2020, transfer="arib-std-b67", full=False)
        yield video("hlg", f"hevc-compatible.{suffix}", x265("transfer=bt2020-10", "atc-sei=18"), sdr_too, ten)
    for content, mastered in ((400, 4000), (150, 1000), (4000, 1000), (0, 600)):
        tags = Tags(**BT2020, transfer="smpte2084", full=False, max_cll=content, mastering_max=mastered)
        line = x265(MASTERING.format(mastered), f"max-cll={content},100", "hdr10=1")
        yield video("pq", f"hevc-cll-{content}-{mastered}.mp4", line, tags, ten)
        yield video("pq", f"hevc-cll-{content}-{mastered}.mkv", line, tags, ten)
    full = Tags(**BT2020, transfer="smpte2084", full=True)
    yield video("pq", "hevc-full.mp4", x265(), full, ten)
    yield video("pq", "hevc-sd.mp4", x265(), pq, ten, size=SD)
    yield video("pq", "hevc-only-transfer.mp4", x265(), Tags(transfer="smpte2084"), ten)
    yield video("pq", "hevc-no-matrix.mp4", x265(), Tags("", "bt2020", "smpte2084"), ten)
    yield video("pq", "hevc-p3.mp4", x265(), Tags("bt709", "smpte432", "smpte2084", False), ten)
    yield video("pq", "hevc-709.mp4", x265(), Tags("bt709", "bt709", "smpte2084", False), ten)
    yield video("pq", "h264.mp4", X264, pq, ten)
    yield video("pq", "vp9.webm", VP9, pq, ten)
    yield video("pq", "av1.mp4", AV1, pq, ten)
    yield video("pq", "av1.webm", AV1, pq, ten)
    yield video("pq", "prores.mov", PRORES, pq, "yuv422p10le", unsaid=["range"])
    yield video("pq", "gbr.mp4", x265(), Tags("gbr", "bt2020", "smpte2084", True), "gbrp10le")
    yield video("hlg", "h264-hlg.mp4", X264, hlg, ten)
    yield video("hlg", "vp9-hlg.webm", VP9, hlg, ten)
    yield video("hlg", "av1-hlg.mkv", AV1, hlg, ten)
    yield video("hlg", "prores-hlg.mov", PRORES, hlg, "yuv422p10le", unsaid=["range"])
    yield video("hlg", "hevc-only-transfer-hlg.mp4", x265(), Tags(transfer="arib-std-b67"), ten)


def motion_jpeg() -> Iterator[Case]:
    """Always BT.601 in full range, whatever the size and whatever a container says."""
    for suffix in ("avi", "mov", "mkv"):
        for size in ((640, 480), (1280, 720), (1920, 1080)):
            for pixel_format in ("yuvj420p", "yuvj422p"):
                name = f"mjpeg-{pixel_format[4:7]}-{size[0]}.{suffix}"
                yield video(
                    "mjpeg",
                    name,
                    MJPEG,
                    Tags("smpte170m", full=True),
                    pixel_format,
                    size=size,
                    codec="mjpeg",
                    unsaid=["matrix", "primaries", "transfer"],
                )
    for suffix in ("mov", "mkv"):
        yield video(
            "mjpeg",
            f"mjpeg-tagged-709.{suffix}",
            MJPEG,
            Tags("bt709", "bt709", "bt709", True),
            "yuvj420p",
            codec="mjpeg",
            unsaid=["matrix", "primaries", "transfer"],
        )

    yield video(
        "mjpeg",
        "mjpeg-bare.mkv",
        MJPEG,
        Tags("smpte170m", full=True),
        "yuvj420p",
        codec="mjpeg",
        unsaid=["matrix", "primaries", "transfer"],
        changed=_without_color,
    )


def _without_color(data: bytes) -> bytes:
    """A Matroska file whose element `Colour` (0x55B0) is made a `Void` of the same length."""
    place = data.index(b"\x55\xb0")
    length = data[place + 2] & 0x7F
    return data[:place] + bytes([0xEC, 0x80 | length + 1]) + bytes(length + 1) + data[place + 3 + length :]


def rgb() -> Iterator[Case]:
    none, full = Tags(), Tags("gbr", "bt709", "bt709", True)
    unsaid = ["matrix", "range"]
    for size, name in ((HD, "hd"), (SD, "sd")):
        yield video("rgb", f"x264rgb-{name}.mkv", X264_RGB, full, "rgb24", size=size)
        yield video("rgb", f"x264rgb-{name}.mp4", X264_RGB, full, "rgb24", size=size)
        yield video("rgb", f"png-{name}.mov", ("-c:v", "png"), none, "rgb24", size=size, unsaid=unsaid)
        yield video("rgb", f"qtrle-{name}.mov", ("-c:v", "qtrle"), none, "rgb24", size=size, unsaid=unsaid)
        yield video("rgb", f"ffv1-{name}.mkv", FFV1, none, "gbrp", size=size, unsaid=unsaid)
        yield video("rgb", f"utvideo-{name}.avi", ("-c:v", "utvideo"), none, "gbrp", size=size, unsaid=unsaid)
        yield video("rgb", f"huffyuv-{name}.avi", ("-c:v", "huffyuv"), none, "rgb24", size=size, unsaid=unsaid)
    yield video("rgb", "raw.mov", ("-c:v", "rawvideo"), none, "rgb24", unsaid=unsaid)
    yield video("rgb", "vp9-gbr.webm", VP9, full, "gbrp", unsaid=["primaries", "transfer"])
    yield video(
        "rgb",
        "av1-gbr.mkv",
        ("-c:v", "libaom-av1", "-crf", "0", "-cpu-used", "8"),
        Tags("gbr", "bt709", "iec61966-2-1", True),
        "gbrp",
    )
    yield video("rgb", "ffv1-10.mkv", FFV1, none, "gbrp10le", unsaid=unsaid)
    yield video("rgb", "x264rgb-p3.mp4", X264_RGB, Tags("gbr", "smpte432", "bt709", True), "rgb24")
    yield video("rgb", "gbr-limited.mp4", x265(), Tags("gbr", "bt709", "bt709", False), "gbrp", or_rejected=True)


def alpha() -> Iterator[Case]:
    """Transparent patches hide a color: each third one is opaque, half and wholly transparent."""
    share = np.array([1, 0.5, 0] * 4)
    none, unsaid = Tags(), ["matrix", "range"]
    yield video("alpha", "qtrle.mov", ("-c:v", "qtrle"), none, "argb", alpha=share, unsaid=unsaid)
    yield video("alpha", "png.mov", ("-c:v", "png"), none, "rgba", alpha=share, unsaid=unsaid)
    yield video("alpha", "png.mkv", ("-c:v", "png"), none, "rgba", alpha=share, unsaid=unsaid)
    yield video("alpha", "raw.mov", ("-c:v", "rawvideo"), none, "argb", alpha=share, unsaid=unsaid)
    yield video("alpha", "ffv1.mkv", FFV1, none, "bgra", alpha=share, unsaid=unsaid)
    yield video(
        "alpha", "utvideo.avi", ("-c:v", "utvideo"), none, "rgba", alpha=share, unsaid=[*unsaid, "pixels"], noted=True
    )
    tags = Tags("gbr", "smpte432", "bt709", True)
    yield video("alpha", "png-p3.mov", ("-c:v", "png"), tags, "rgba", alpha=share, unsaid=unsaid, noted=True)
    pq = Tags(**BT2020, transfer="smpte2084", full=False)
    yield video(
        "alpha",
        "prores4444-pq.mov",
        (*PRORES, "-profile:v", "4444"),
        pq,
        "yuva444p10le",
        alpha=share,
        noted=True,
        unsaid=["range", "pixels"],
    )
    tags = Tags("bt709", "bt709", "bt709", False)
    yield video(
        "alpha",
        "prores4444.mov",
        (*PRORES, "-profile:v", "4444"),
        tags,
        "yuva444p10le",
        alpha=share,
        unsaid=["range", "pixels"],
    )
    yield video("alpha", "ffv1-yuva.mkv", FFV1, tags, "yuva420p", alpha=share)
    yield video(
        "alpha",
        "vp9.webm",
        (*VP9[:2], "-crf", "4", "-b:v", "0", "-auto-alt-ref", "0"),
        tags,
        "yuva420p",
        alpha=share,
        unsaid=["primaries", "transfer"],
    )
    yield video(
        "alpha", "vp8.webm", (*VP8, "-auto-alt-ref", "0"), none, "yuva420p", size=SD, alpha=share, unsaid=["matrix"]
    )


def odd() -> Iterator[Case]:
    """Transfer functions of other kinds: by their own curve, or rejected."""
    for transfer in ("gamma22", "gamma28", "linear"):
        for suffix in ("mp4", "mkv"):
            yield video(
                "odd", f"h264-{transfer}.{suffix}", X264, Tags("bt709", "bt709", transfer, False), or_rejected=True
            )
    yield video("odd", "h264-470m.mp4", X264, Tags("bt709", "bt470m", "bt709", False), or_rejected=True)
    yield video("odd", "h264-240m.mp4", X264, Tags("smpte240m", "smpte240m", "smpte240m", False))

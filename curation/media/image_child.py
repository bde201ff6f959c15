"""The process that decodes untrusted images. `image_reader.py` starts it with its end of a pipe:

    python image_child.py DESCRIPTOR

A request has the limits, `source`, `target`, and `side`: the side of the square that is written to `target` as a JPEG,
or null for a PPM of the whole image. Its `crop` is null, or left, top, width and height of the part to use. The answer
has `seconds` of CPU time, `damaged`, `not_shown` or `fault`.

Tested in tests/curation/media/test_image_reader.py.
"""

from __future__ import annotations

import errno
import sys
import time
import warnings
from multiprocessing.connection import Connection
from typing import Any

from PIL import Image

from nextscene.curation.media.child_loop import serve
from nextscene.curation.media.still_image import MAX_PIXELS, NotShownError, upright, write_jpeg


def _answer(_: Connection, request: dict[str, Any]) -> dict[str, Any]:
    """Convert one image and return the answer for the parent. Raise MemoryError."""
    begun, side, crop = time.process_time(), request["side"], request["crop"]
    try:
        image = upright(request["source"], None if crop else side)
        if crop:
            left, top, width, height = crop
            image = image.crop((left, top, left + width, top + height))
    except NotShownError as error:
        return {"not_shown": str(error)}
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow raises errors of many classes for damaged files
        return {"damaged": str(error) or type(error).__name__}
    try:
        if side is None:
            image.save(request["target"], "PPM")
        else:
            write_jpeg(image, side, request["target"])
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError from error
        return {"fault": [error.errno, error.strerror or str(error)]}
    return {"seconds": time.process_time() - begun}


if __name__ == "__main__":
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    warnings.simplefilter("ignore")
    serve(int(sys.argv[1]), _answer)

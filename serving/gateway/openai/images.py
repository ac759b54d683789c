"""Pictures in a request: only ``data:`` URLs, and only as large as their header says is fair.

Nothing is fetched, so there is no address to trick us into fetching. Nothing is decompressed either: Pillow
reads the size from the header, and the pixels are the replica's work.
"""

from __future__ import annotations

import binascii
import io
import re
import warnings

from serving.errors import Reason, Refused
from serving.gateway.openai.checks import wrong_type
from serving.gateway.openai.limits import Limits

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
EXPECTED = "data:image/png|jpeg|webp|gif;base64,..."

_DATA_URL = re.compile(r"data:image/(?:png|jpeg|webp|gif);base64,")


def check_image(url: object, param: str, limits: Limits) -> int:
    """Check one image URL and return its number of pixels."""
    if type(url) is not str:
        raise wrong_type(url, param, "string")
    prefix = _DATA_URL.match(url)
    if prefix is None:
        raise _invalid(param)
    _check_size("bytes", (len(url) - prefix.end()) * 3 // 4, limits.max_image_bytes, param)
    try:
        data = binascii.a2b_base64(url[prefix.end() :], strict_mode=True)
    except ValueError:
        raise _invalid(param) from None
    width, height = _dimensions(data, param)
    _check_size("pixels", width * height, limits.max_image_pixels, param)
    return width * height


def check_total(pixels: int, param: str, limits: Limits) -> None:
    """Check all images of a request together."""
    _check_size("pixels", pixels, limits.max_request_pixels, param)


def _dimensions(data: bytes, param: str) -> tuple[int, int]:
    # Imported here: a deployment without a vision model never pays for it.
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return image.size
    except Image.DecompressionBombError:
        return Image.MAX_IMAGE_PIXELS or 0, 2
    except Exception:
        # Pillow's readers raise whatever a broken header leads them to: OSError, SyntaxError, struct.error and more.
        raise _invalid(param) from None


def _check_size(unit: str, size: int, limit: int, param: str) -> None:
    if size > limit:
        raise Refused(Reason.IMAGE_TOO_LARGE, param=param, limit=limit, got=size, name=unit)


def _invalid(param: str) -> Refused:
    return Refused(Reason.INVALID_IMAGE_URL, param=param, expected=EXPECTED)

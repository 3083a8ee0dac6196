"""Images: thumbnails of what people upload, each made in a process of its own.

    brokerjobs consume images
    brokerjobs publish images.thumbnail '{"source": "cat.jpg"}'

Decoders are C libraries, and they read what strangers send: a file that crashes one, or that unpacks to gigabytes,
must cost its own job and nobody else's. So these jobs are isolated, bounded in memory, and killed in time.

Environment: IMAGES_FOLDER (images) holds the originals; thumbnails go to `thumbnails` in it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field

from brokerjobs import Consumer, Reject, Retry

# A file may be missing or cut short because it is still being uploaded.
consumer = Consumer("images", retry=Retry(max_attempts=5, on=OSError))

Pixels = Annotated[int, Field(ge=16, le=2048)]


@consumer.job(isolate=True, timeout="30s", memory_limit="512 MiB")
def thumbnail(source: str, size: Pixels = 256) -> str:
    """Make a WebP image that fits into a square of this size; gives its path."""
    folder = Path(os.environ.get("IMAGES_FOLDER", "images")).resolve()
    original = (folder / source).resolve()
    if not original.is_relative_to(folder):
        raise Reject(f"{source!r} is not in the folder of images")  # a message may come from anybody
    target = folder / "thumbnails" / f"{source}.{size}.webp"
    try:
        with Image.open(original) as image:
            small = ImageOps.exif_transpose(image.convert("RGBA"))  # as the camera was held
            small.thumbnail((size, size))
    except UnidentifiedImageError as error:
        raise Reject(f"{source!r} is no image") from error
    except Image.DecompressionBombError as error:
        raise Reject(str(error)) from error
    save(small, target)
    return str(target)


def save(image: Image.Image, target: Path) -> None:
    """Write it whole or not at all: the process may be killed at any moment, and the next attempt writes it again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        image.save(file, "WEBP", quality=80)
    os.replace(file.name, target)

"""The example `images`: what its thumbnails look like, and which files it gives up on."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from brokerjobs import InvalidArguments
from brokerjobs.testing import DeadLettered, Ran, Retried, Succeeded
from brokerjobs.testing import run as run_of
from consumers.images import consumer, thumbnail


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IMAGES_FOLDER", str(tmp_path / "images"))
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def run(source: str, size: int = 256) -> Ran:
    return run_of(thumbnail.message(source, size), consumer)


def test_thumbnail_fits_into_its_square_and_keeps_its_shape(folder: Path) -> None:
    Image.new("RGB", (1200, 800), "red").save(folder / "cat.jpg")

    ran = run("cat.jpg", 300)

    assert ran.result == str(folder / "thumbnails" / "cat.jpg.300.webp")
    with Image.open(ran.result) as found:
        assert (found.format, found.size) == ("WEBP", (300, 200))
        red, green, blue = found.convert("RGB").getpixel((150, 100))  # type: ignore[misc]
        assert red > 240
        assert max(green, blue) < 20


def test_photograph_stands_as_the_camera_was_held(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (400, 200)).save(folder / "cat.jpg", exif=exif)

    with Image.open(run("cat.jpg").result) as found:
        assert found.size == (128, 256)


def test_transparency_is_kept(folder: Path) -> None:
    Image.new("RGBA", (400, 400), (0, 0, 0, 0)).save(folder / "logo.png")

    with Image.open(run("logo.png").result) as found:
        assert found.convert("RGBA").getpixel((9, 9))[3] == 0  # type: ignore[index]


def test_same_job_again_changes_nothing(folder: Path) -> None:
    Image.new("RGB", (40, 40)).save(folder / "cat.png")
    (folder / "albums").mkdir()
    Image.new("RGB", (40, 40)).save(folder / "albums" / "cat.png")

    run("cat.png")
    run("cat.png")
    run("albums/cat.png")

    made = sorted(
        str(path.relative_to(folder)) for path in (folder / "thumbnails").rglob("*") if path.is_file()
    )
    assert made == ["thumbnails/albums/cat.png.256.webp", "thumbnails/cat.png.256.webp"]


def test_what_is_no_image_will_be_none_tomorrow(folder: Path) -> None:
    (folder / "notes.jpg").write_text("to do")

    ran = run("notes.jpg")

    assert isinstance(ran.outcome, DeadLettered)
    assert ran.outcome.reason == "rejected"
    assert ran.outcome.failure.text == "'notes.jpg' is no image"


def test_bomb_is_refused_before_it_unpacks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("1", (100, 100)).save(folder / "bomb.png")

    ran = run("bomb.png")

    assert isinstance(ran.outcome, DeadLettered)
    assert "decompression bomb" in ran.outcome.failure.text


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "cut short"])
def test_file_that_is_still_being_uploaded_is_tried_again(folder: Path, content: bytes | None) -> None:
    if content is not None:
        Image.new("RGB", (400, 400), "red").save(folder / "cat.png")
        whole = (folder / "cat.png").read_bytes()
        (folder / "cat.png").write_bytes(whole[: len(whole) // 2])

    assert isinstance(run("cat.png").outcome, Retried)


@pytest.mark.parametrize("source", ["../secret.png", "/etc/hostname", "albums/../../secret.png"])
def test_only_files_of_the_folder_are_read(folder: Path, source: str) -> None:
    Image.new("RGB", (40, 40)).save(folder.parent / "secret.png")

    ran = run(source)

    assert isinstance(ran.outcome, DeadLettered)
    assert "is not in the folder" in ran.outcome.failure.text


def test_link_out_of_the_folder_is_not_followed(folder: Path) -> None:
    Image.new("RGB", (40, 40)).save(folder.parent / "secret.png")
    (folder / "cat.png").symlink_to(folder.parent / "secret.png")

    assert isinstance(run("cat.png").outcome, DeadLettered)


@pytest.mark.parametrize("size", [15, 2049])
def test_sizes_are_bounded(size: int) -> None:
    with pytest.raises(InvalidArguments):
        thumbnail.message("cat.png", size)


def test_it_is_isolated_with_limits() -> None:
    assert (thumbnail.isolate, thumbnail.memory_limit, thumbnail.timeout) == (True, 512 * 2**20, 30)


def test_thumbnail_is_a_plain_function_too(folder: Path) -> None:
    Image.new("RGB", (40, 40)).save(folder / "cat.png")

    assert isinstance(run("cat.png").outcome, Succeeded)
    assert thumbnail("cat.png").endswith("cat.png.256.webp")

"""Contact sheets: every image in its place, in its frame, whatever its shape."""

import argparse
import os

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from darknet_face.console import UserError
from darknet_face.images.contact_sheets import (
    BLUE,
    GREEN,
    RED,
    _cut,
    check_drawing,
    contact_sheet,
    encode,
    fit,
    font,
    image_name,
    save_chart,
    save_image,
)


def plain(height, width, colour):
    return np.full((height, width, 3), colour, np.uint8)


@pytest.mark.parametrize("height, width", [(10, 10), (300, 100), (100, 300), (1, 500), (7, 2)])
def test_fit_keeps_the_shape(height, width):
    tile = fit(plain(height, width, (9, 99, 199)), 60)
    assert tile.shape == (60, 60, 3)
    covered = (tile == (9, 99, 199)).all(axis=2)
    rows, columns = covered.any(axis=1).sum(), covered.any(axis=0).sum()
    scale = 60 / max(height, width)
    assert abs(rows - max(1, height * scale)) <= 1 and abs(columns - max(1, width * scale)) <= 1
    assert covered.sum() == rows * columns


def test_sheet_shows_every_picture_in_its_frame():
    colours = [(250 - 40 * i, 40 * i, 120) for i in range(5)]
    frames = [GREEN, RED, BLUE, GREEN, RED]
    sheet = np.asarray(contact_sheet(
        [plain(20, 20, colour) for colour in colours], ["one\ntwo"] * 5, frames, "Title",
        columns=2, tile=50))
    for colour in colours:
        rows, columns = np.nonzero((sheet == colour).all(axis=2))
        assert len(rows) == 50 * 50
        index = colours.index(colour)
        assert tuple(sheet[rows[0] - 1, columns[0]]) == frames[index]
        assert tuple(sheet[rows[0], columns[0] - 1]) == frames[index]
    firsts = [tuple(np.argwhere((sheet == colour).all(axis=2))[0]) for colour in colours]
    assert firsts == sorted(firsts), "in rows, from the upper left"
    assert firsts[0][0] == firsts[1][0] < firsts[2][0] == firsts[3][0] < firsts[4][0]


def test_lines_of_a_caption_stay_below_their_picture_and_above_the_next():
    images = [plain(10, 10, (1, 2, 3))] * 2
    heights = [contact_sheet(images, captions, columns=1, tile=40).height
               for captions in (None, ["a"] * 2, ["a\nb"] * 2)]
    assert heights[0] < heights[1] < heights[2]
    sheet = np.asarray(contact_sheet(images, ["|||\n|||"] * 2, columns=1, tile=40))
    dark = (sheet < 120).all(axis=2) & ~(sheet == (1, 2, 3)).all(axis=2)
    assert dark.any() and not dark[:, 44:].any()


def test_a_long_title_is_set_smaller_and_a_long_caption_loses_its_beginning():
    sheet = np.asarray(contact_sheet([plain(9, 9, 200)], title="W" * 6, tile=60))
    assert (sheet[:, -3:] > 240).all(), "nothing runs off the right edge"
    cut = _cut("a/very/long/path/to/face.jpg", font(13), 80)
    assert cut.startswith("…") and cut.endswith("face.jpg")
    assert font(13).getlength(cut) <= 80


def test_pictures_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "folder" / "sheet.png"
    save_image(str(path), plain(8, 9, (1, 2, 3)))
    np.testing.assert_array_equal(np.asarray(Image.open(str(path))), plain(8, 9, (1, 2, 3)))
    folder = path.parent / "folder.png"
    folder.mkdir()
    with pytest.raises(IsADirectoryError) as error:
        save_image(str(folder), plain(8, 9, 0))
    assert error.value.filename == str(folder)
    assert sorted(os.listdir(str(path.parent))) == ["folder.png", "sheet.png"]
    assert encode(Image.new("RGB", (3, 3)), "PNG").startswith(b"\x89PNG")


def test_names_under_which_no_picture_can_be_written(tmp_path):
    assert image_name("new/Sheet.PNG") == "new/Sheet.PNG"
    (tmp_path / "folder.png").mkdir()
    for name in ("sheet.unknown", "sheet", str(tmp_path / "folder.png")):
        with pytest.raises(argparse.ArgumentTypeError, match=name):
            image_name(name)


@pytest.mark.parametrize("name", ["chart.png", "chart.jpg", "chart.jpeg"])
def test_drawings_are_known_by_their_mark(tmp_path, name):
    path = str(tmp_path / name)
    check_drawing(path)
    save_image(path, plain(8, 9, 0))
    with pytest.raises(UserError, match="not an image drawn by this program"):
        check_drawing(path)
    with pytest.raises(argparse.ArgumentTypeError, match="name another file"):
        image_name(path)
    figure = Figure(figsize=(1, 1))
    save_chart(path, figure, 50)
    assert image_name(path) == path and Image.open(path).size == (50, 50)
    save_image(path, contact_sheet([plain(8, 9, 0)]))
    check_drawing(path)


def test_pipes_and_folders_are_no_drawings(tmp_path):
    os.mkfifo(str(tmp_path / "pipe.png"))
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        with pytest.raises(UserError, match="not a regular file"):
            check_drawing(str(tmp_path / name))
    (tmp_path / "empty.png").write_bytes(b"")
    check_drawing(str(tmp_path / "empty.png"))


def test_a_sheet_too_long_for_a_jpeg_is_refused_with_the_remedy(tmp_path):
    long = np.zeros((65501, 1, 3), np.uint8)
    with pytest.raises(UserError, match="long.jpg: 1 x 65,501 pixels.*end its name in .png"):
        save_image(str(tmp_path / "long.jpg"), long)
    save_image(str(tmp_path / "long.png"), long)
    assert os.listdir(str(tmp_path)) == ["long.png"]

"""WIDER FACE's box files: read as distributed, split by photograph, refused in one line."""

import pytest

from darknet_face.console import UserError
from darknet_face.images import wider_face
from darknet_face.images.wider_face import BoxFiles, Face, find_labelled_images, read_boxes

WIDER = """0--Parade/0_Parade_marchingband_1_849.jpg
1
449 330 122 149 0 0 0 0 0 0 
0--Parade/0_Parade_Parade_0_452.jpg
0
0 0 0 0 0 0 0 0 0 0 
0--Parade/0_Parade_marchingband_1_799.jpg
3
78 221 7 8 2 0 0 0 0 0 
78 238 14 17 2 0 0 1 0 0 
113 212 0 15 2 0 0 0 0 0 
"""  # noqa: W291 (the official file's lines end with a blank)


def test_official_lines(tmp_path):
    path = tmp_path / "boxes.txt"
    path.write_text(WIDER)
    assert read_boxes(str(path)) == [
        ("0--Parade/0_Parade_marchingband_1_849.jpg", [Face(449, 330, 122, 149, True)]),
        ("0--Parade/0_Parade_Parade_0_452.jpg", []),
        ("0--Parade/0_Parade_marchingband_1_799.jpg",
         [Face(78, 221, 7, 8, True), Face(78, 238, 14, 17, False)])]


def test_other_collections_lines(tmp_path):
    path = tmp_path / "boxes.txt"
    path.write_bytes(b"\xef\xbb\xbfa b.jpg\r\n0\r\nc.jpg\r\n1\r\n41 159 378 276 with_mask\r\n\r\n")
    assert read_boxes(str(path)) == [("a b.jpg", []), ("c.jpg", [Face(41, 159, 378, 276, True)])]


@pytest.mark.parametrize("content, cause", [
    (b"", "empty"), (b"a.jpg\n", ":2:"), (b"a.jpg\n-1\n", "number of faces"),
    (b"a.jpg\n999999999\n", "number of faces"), (b"a.jpg\n2\n1 2 3 4\n", ":4:"),
    (b"a.jpg\n1\n1 2 3\n", ":3:"), (b"a.jpg\n1\n1 2 nan 4\n", ":3:"),
    (b"a.jpg\n1\n1 2 1e400 4\n", ":3:"), (b"\xff\xfe\x00", "not a text file")])
def test_damaged_files_are_one_line(tmp_path, content, cause):
    path = tmp_path / "boxes.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=cause):
        read_boxes(str(path))


def test_missing_file_and_missing_photographs(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        find_labelled_images(str(tmp_path))
    path = tmp_path / "boxes.txt"
    path.write_text("a.jpg\n0\n")
    with pytest.raises(UserError, match="no such image"):
        find_labelled_images("", files=BoxFiles("none", str(path), "none", str(path)))


def test_a_photograph_keeps_its_split(tmp_path):
    names = ["{}/{}.jpg".format(number % 3, number) for number in range(400)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    path, fewer = tmp_path / "boxes.txt", tmp_path / "fewer.txt"
    path.write_text("".join(name + "\n0\n" for name in names))
    fewer.write_text("".join(name + "\n0\n" for name in names[::2]))

    def splits(boxes, train_only=""):
        files = BoxFiles(str(tmp_path), str(boxes), str(tmp_path), str(fewer))
        found = find_labelled_images("", 0.25, files, train_only)
        return {each.name: each.split for each in found if each.split != "test"}

    whole = splits(path)
    assert 0.18 < sum(split == "val" for split in whole.values()) / 400 < 0.32
    assert splits(fewer) == {name: whole[name] for name in names[::2]}
    assert set(splits(path, "1*.jpg")[name] for name in names
               if name.split("/")[1].startswith("1")) == {"train"}


@pytest.mark.parametrize("content, cause", [
    (b"../a.jpg\n0\n", ":1: '../a.jpg' is not a file's name within"),
    (b"b/../../a.jpg\n0\n", ":1:"), (b"/etc/a.jpg\n0\n", ":1:"), (b"a\0.jpg\n0\n", ":1:"),
    (b"a.jpg\n0\nb/../a.jpg\n0\n", ":3: .* is named twice"),
    (b"a.jpg\n" + b"9" * 5000 + b"\n", "number of faces"),
    (b"a.jpg\n1\n1e30 2 3 4\n", ":3:"), (b"a.jpg\n1\n1 2 1e18 4\n", ":3:")])
def test_hostile_names_and_numbers_are_one_line(tmp_path, content, cause):
    path = tmp_path / "boxes.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=cause):
        read_boxes(str(path))


def test_each_photograph_s_crops_have_names_of_their_own(tmp_path):
    """Names that differ in a separator or an extension alone, and one as long as a name can be."""
    names = ["a/b.jpg", "a-b.jpg", "a-b.png", "c" * 251 + ".jpg", "d.jpg"]
    (tmp_path / "a").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(b"")
    path = tmp_path / "boxes.txt"
    path.write_text("".join(name + "\n0\n" for name in names))
    files = BoxFiles(str(tmp_path), str(path), str(tmp_path), str(path))
    found = find_labelled_images("", 0, files)
    stems = [each.stem for each in found if each.split == "train"]
    assert len(set(stems)) == len(names) and max(map(len, stems)) < 200 and stems[-1] == "d"


def test_a_file_of_endless_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(wider_face, "MAX_LINES", 1000)
    path = tmp_path / "boxes.txt"
    path.write_text("a\n" * 1001)
    with pytest.raises(UserError, match="more than 1,000 lines"):
        read_boxes(str(path))

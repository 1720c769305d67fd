"""Reading boxes: WIDER FACE, Pascal VOC, YOLO, COCO, and the rule on small faces."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from darknet_face.console import UserError
from darknet_face.detection.datasets import (
    Photograph,
    prune,
    read_coco,
    read_photographs,
    read_voc,
    read_wider,
)

VOC = """<annotation><filename>one.jpg</filename>
<object><name>face</name><difficult>{}</difficult>
<bndbox><xmin>20</xmin><ymin>10</ymin><xmax>60</xmax><ymax>50</ymax></bndbox></object>
<object><name>face</name>
<bndbox><xmin>-5</xmin><ymin>0</ymin><xmax>20</xmax><ymax>120</ymax></bndbox></object>
</annotation>"""


@pytest.mark.parametrize("name", ["turned.jpg", "turned.tif", "turned.png"])
def test_boxes_are_shares_of_the_upright_photograph(tmp_path, name):
    """200 x 100 as stored, shown as 100 x 200; newer versions of Pillow turn a TIFF themselves."""
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (200, 100), "grey").save(str(tmp_path / name), exif=exif)
    (tmp_path / "boxes.txt").write_text("{}\n1\n10 20 50 100\n".format(name))
    photograph, = read_photographs(str(tmp_path), str(tmp_path / "boxes.txt"))
    np.testing.assert_allclose(photograph.boxes, [[0.1, 0.1, 0.6, 0.6]])


def test_what_is_no_photograph_is_skipped(tmp_path, capsys):
    Image.new("RGB", (200, 100)).save(str(tmp_path / "good.png"))
    (tmp_path / "page.jpg").write_text("<html>")
    (tmp_path / "half.tif").write_bytes(b"II*\0\x08\0\0\0\x01\0")
    os.mkfifo(str(tmp_path / "pipe.jpg"))
    names = ["page.jpg", "half.tif", "pipe.jpg", "good.png"]
    (tmp_path / "boxes.txt").write_text("".join(
        "{}\n1\n10 20 50 60\n".format(name) for name in names))
    photograph, = read_photographs(str(tmp_path), str(tmp_path / "boxes.txt"))
    assert photograph.path.endswith("good.png")
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and all(
        name in line and line.endswith("skipped") for name, line in zip(names, errors))


@pytest.fixture
def wider(tmp_path):
    """WIDER FACE with a large face, an invalid one, a small one, and a missing photograph."""
    images = tmp_path / "WIDER_train" / "images" / "0--Parade"
    images.mkdir(parents=True)
    for name in ("large.jpg", "mixed.jpg", "empty.jpg", "turned.jpg"):
        image, exif = Image.new("RGB", (200, 100), "grey"), Image.Exif()
        if name == "turned.jpg":
            exif[0x0112] = 6
        image.save(str(images / name), exif=exif)
    (tmp_path / "wider_face_split").mkdir()
    (tmp_path / "wider_face_split" / "wider_face_train_bbx_gt.txt").write_text("\n".join([
        "0--Parade/large.jpg", "2", "20 10 40 50 0 0 0 0 0 0", "0 0 20 20 0 0 0 1 0 0",
        "0--Parade/mixed.jpg", "2", "20 10 40 50 0 0 0 0 0 0", "0 0 9 9 0 0 0 0 0 0",
        "0--Parade/empty.jpg", "0", "0 0 0 0 0 0 0 0 0 0",
        "0--Parade/turned.jpg", "1", "10 20 50 100 0 0 0 0 0 0",
        "0--Parade/none.jpg", "1", "20 10 40 50 0 0 0 0 0 0"]) + "\n")
    return tmp_path


def test_wider_by_the_rule(wider, capsys):
    large, turned = read_wider(str(wider), "train")
    np.testing.assert_allclose(large.boxes, [[0.1, 0.1, 0.3, 0.6]])
    np.testing.assert_allclose(large.ignored, [[0, 0, 0.1, 0.2]])
    np.testing.assert_allclose(turned.boxes, [[0.1, 0.1, 0.6, 0.6]])  # shown upright: 100 x 200
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "none.jpg: no such file; skipped" in error


def test_wider_with_small_faces(wider):
    large, mixed, _ = read_wider(str(wider), "train", "large")
    assert len(mixed.boxes) == 1 and len(mixed.ignored) == 1 and len(large.ignored) == 1
    everything = read_wider(str(wider), "train", "all")
    assert [len(each.boxes) for each in everything] == [1, 2, 0, 1]


@pytest.mark.parametrize("count, size, kept", [(10, 0.1, True), (11, 0.1, False), (1, 0.09, False),
                                               (0, 0.1, False)])
def test_the_rule(count, size, kept):
    boxes = np.tile(np.float32([0, 0, size + 1e-4, size + 1e-4]), (count, 1))
    photograph = Photograph("x.jpg", boxes, boxes[:0])
    assert (prune(photograph, "pruned") == photograph if kept
            else prune(photograph, "pruned") is None)


def test_voc_folder(tmp_path):
    Image.new("RGB", (200, 100)).save(str(tmp_path / "one.jpg"))
    (tmp_path / "one.xml").write_text(VOC.format(1))
    photograph, = read_photographs(str(tmp_path), str(tmp_path))
    np.testing.assert_allclose(photograph.boxes, [[0, 0, 0.1, 1]])  # clipped to the image
    np.testing.assert_allclose(photograph.ignored, [[0.1, 0.1, 0.3, 0.5]])


@pytest.mark.parametrize("content", [
    "", "text", "<annotation/>", VOC.format(0)[:200],
    VOC.format(0).replace("20", "nan"), VOC.format(0).replace("20", "1e300"),
    VOC.format(0).replace("<xmin>20</xmin>", ""),
    '<!DOCTYPE a [<!ENTITY b "bb">]>' + VOC.format(0),
    '<?xml version="1.0" encoding="hex"?>' + VOC.format(0),
])
def test_bad_voc(tmp_path, content):
    (tmp_path / "one.xml").write_text(content)
    with pytest.raises(UserError, match="one.xml: not a Pascal VOC file"):
        read_voc(str(tmp_path / "one.xml"))


def test_entities_in_utf_16(tmp_path):
    text = '<?xml version="1.0" encoding="utf-16"?>{}' + VOC.format(0).replace("one.jpg", "{}.jpg")
    path = str(tmp_path / "one.xml")
    for entities, name in (("", "one"), ('<!DOCTYPE a [<!ENTITY b "bb">]>', "&b;")):
        with open(path, "wb") as stream:
            stream.write(text.format(entities, name).encode("utf-16"))
        if not entities:
            assert read_voc(path)[0] == "one.jpg"
    with pytest.raises(UserError, match="with entities"):
        read_voc(path)


def test_nothing_left(wider, tmp_path):
    with pytest.raises(UserError, match="none of its 5 images is in"):
        read_photographs(str(tmp_path / "elsewhere"), str(
            wider / "wider_face_split" / "wider_face_train_bbx_gt.txt"))
    with pytest.raises(UserError, match="no .xml and no .txt file"):
        read_photographs(str(wider), str(wider / "WIDER_train"))


@pytest.mark.parametrize("name", ["../secret/one.jpg", "/etc/one.jpg", "a/../../one.jpg", ".", ""])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    (tmp_path / "voc").mkdir()
    (tmp_path / "voc" / "one.xml").write_text(VOC.format(0).replace("one.jpg", name))
    (tmp_path / "coco.json").write_text(json.dumps(coco(name)))
    for boxes in ("voc", "coco.json"):
        with pytest.raises(UserError, match="is not a file's name within the images' folder"):
            read_photographs(str(tmp_path), str(tmp_path / boxes))


def test_an_image_that_is_named_twice_is_refused(tmp_path):
    for name in ("a.xml", "b.xml"):
        (tmp_path / name).write_text(VOC.format(0))
    with pytest.raises(UserError, match="'one.jpg' is named twice"):
        read_photographs(str(tmp_path), str(tmp_path))


def coco(name="one.jpg", **changes):
    return dict({
        "images": [{"id": 7, "file_name": name, "width": 200, "height": 100}],
        "categories": [{"id": 1, "name": "Face"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "bbox": [20, 10, 40, 40], "iscrowd": 0},
            {"image_id": 7, "category_id": 1, "bbox": [0, 0, 20, 100], "iscrowd": 1},
            {"image_id": 7, "category_id": 2, "bbox": [5, 5, 90, 90]}]}, **changes)


def test_coco(tmp_path):
    Image.new("RGB", (200, 100)).save(str(tmp_path / "one.jpg"))
    (tmp_path / "boxes.json").write_text(json.dumps(coco()))
    photograph, = read_photographs(str(tmp_path), str(tmp_path / "boxes.json"))
    np.testing.assert_allclose(photograph.boxes, [[0.1, 0.1, 0.3, 0.5]])
    np.testing.assert_allclose(photograph.ignored, [[0, 0, 0.1, 1]])
    (tmp_path / "boxes.json").write_text(json.dumps(coco(categories=[])))
    assert len(read_photographs(str(tmp_path), str(tmp_path / "boxes.json"))[0].boxes) == 2


@pytest.mark.parametrize("content", [
    "", "[1]", "{}", '{"images": 3, "annotations": []}',
    json.dumps(coco(annotations=[{"image_id": 8, "category_id": 1, "bbox": [1, 1, 2, 2]}])),
    json.dumps(coco(annotations=[{"image_id": 7, "category_id": 1, "bbox": [1, 1, 2]}])),
    json.dumps(coco(annotations=[{"image_id": 7, "category_id": 1, "bbox": [1, 1, 2, "x"]}])),
    json.dumps(coco(annotations=[{"image_id": 7, "category_id": 1, "bbox": [1, 1, 2, 1e9]}])),
    json.dumps(coco(annotations=[{"image_id": 7, "category_id": 1, "bbox": ["nan", 1, 2, 2]}])),
    json.dumps(coco(images=2 * coco()["images"])), json.dumps(coco(images=[{"id": []}])),
    json.dumps(coco()).replace("40, 40", "NaN, 40"),
])
def test_bad_coco(tmp_path, content):
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(UserError, match="boxes.json") as caught:
        read_coco(str(tmp_path / "boxes.json"))
    assert "\n" not in str(caught.value)


def test_large_box_files_are_refused_before_they_fill_the_memory(tmp_path):
    with open(str(tmp_path / "boxes.json"), "wb") as stream:
        stream.truncate((1 << 26) + 1)
    (tmp_path / "boxes.txt").write_bytes(b"a\n" * 2000001)
    for name, message in (("boxes.json", "larger than 67,108,864 bytes"),
                          ("boxes.txt", "more than 2,000,000 lines")):
        with pytest.raises(UserError, match=message):
            read_photographs(str(tmp_path), str(tmp_path / name))


@pytest.fixture
def yolo(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for name in ("one.jpg", "two.png", "three.png"):
        Image.new("RGB", (200, 100)).save(str(tmp_path / "images" / name))
    (tmp_path / "labels" / "one.txt").write_text("0 0.2 0.3 0.2 0.4\n\n0 0.5 0.5 0.1 0.2 0.9\n")
    (tmp_path / "labels" / "two.txt").write_text("")
    return str(tmp_path / "images"), str(tmp_path / "labels")


def test_yolo_text_files(yolo):
    one, two = read_photographs(*yolo, "all")
    np.testing.assert_allclose(one.boxes, [[0.1, 0.1, 0.3, 0.5], [0.45, 0.4, 0.55, 0.6]], atol=1e-6)
    assert two.path.endswith("two.png") and len(two.boxes) == 0


@pytest.mark.parametrize("content", ["0 0.1 0.2 0.3", "0 0.5 0.5 0.1\n" * 4, "0",
                                     "0 0.1 0.2 x 0.1", "0 20 10 40 40",
                                     "0 nan 0.1 0.1 0.1", "\xff", "0 0.5 0.5 0.1 0.1\n" * 10001])
def test_bad_yolo_text_files(yolo, content):
    with open(os.path.join(yolo[1], "one.txt"), "w", encoding="latin-1") as stream:
        stream.write(content)
    with pytest.raises(UserError, match="one.txt: not a YOLO text file"):
        read_photographs(*yolo)


def test_boxes_turned_inside_out_are_no_faces(yolo):
    with open(os.path.join(yolo[1], "one.txt"), "w") as stream:
        stream.write("0 0.5 0.5 -0.1 -0.1\n0 0.5 0.5 0.1 0.1\n")
    one, _ = read_photographs(*yolo, "all")
    np.testing.assert_allclose(one.boxes, [[0.45, 0.45, 0.55, 0.55]], atol=1e-6)


def test_yolo_files_without_their_images(yolo, tmp_path):
    with pytest.raises(UserError, match="none of its text files has the name of an image"):
        read_photographs(str(tmp_path), yolo[1])

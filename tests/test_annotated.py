"""The annotated video: its frames, its times, and what happens where it can't be written."""

import os
import shutil

import cv2
import numpy as np
import pytest

from darknet_face.classify import annotated_video
from darknet_face.classify.annotated import with_answer
from darknet_face.classify.annotated_video import AnnotatedVideo
from darknet_face.classify.inputs import InputImage
from darknet_face.console import UserError
from darknet_face.images.contact_sheets import GREEN, RED


def row(name="film.avi@0.00s", label="FACE", box=(None,) * 4):
    return dict(zip(("x", "y", "width", "height"), box), **{
        "file": name, "class": label, "probability": 0.5, "face_probability": 0.5})


def frames(path):
    """The frames of a video, RGB, and its rate."""
    capture = cv2.VideoCapture(str(path))
    rate, found = capture.get(cv2.CAP_PROP_FPS), []
    while True:
        decoded, frame = capture.read()
        if not decoded:
            return found, rate
        found.append(frame[..., ::-1])


@pytest.mark.parametrize("name", ["out.mp4", "OUT.AVI", "new/out.mp4"])
def test_a_film_with_its_answers(infer, video, tmp_path, name):
    path = tmp_path / name
    outcome = infer(video, "--annotate", path, "--fps", 5, "--threshold", 0)
    assert outcome.code == 0 and len(outcome.out.splitlines()) == 15
    found, rate = frames(path)
    assert (len(found), rate) == (15, 5)
    for number, frame in enumerate(found):
        assert frame.shape == (48, 64, 3)
        below = frame[24:].mean(axis=(0, 1))
        assert below.argmax() == number // 5, "red, green, blue, a second each"
    assert [each for each in os.listdir(str(path.parent)) if each.startswith(".partial")] == []


@pytest.mark.parametrize("label, colour", [("FACE", GREEN), ("NON_FACE", RED)])
def test_label_and_box_are_drawn(label, colour):
    pixels = np.full((400, 600, 3), 90, np.uint8)
    drawn = with_answer(pixels, row(label=label, box=(300, 200, 100, 80)))
    assert pixels.min() == pixels.max() == 90
    assert tuple(drawn[2, 2]) == colour and (drawn[:40, :200] == 255).any(), "the letters"
    assert (tuple(drawn[200, 350]) == colour) == (label == "FACE")
    assert tuple(drawn[240, 350]) == (90, 90, 90)


def test_frames_that_are_missing_are_held(tmp_path):
    output = AnnotatedVideo(str(tmp_path / "out.avi"), 2)
    for seconds, grey in ((0, 50), (2.5, 150), (3, 250), (1e6, 0)):
        pixels = np.full((48, 64, 3), grey, np.uint8)
        output.write(InputImage("", "", pixels), row("a@b.mp4@{:.2f}s".format(seconds)))
    output.close()
    found, _ = frames(tmp_path / "out.avi")
    levels = [int(frame[40:].mean()) for frame in found]
    np.testing.assert_allclose(levels[:7], [50] * 5 + [150, 250], atol=3)
    assert len(levels) == 8 + 2 * annotated_video.LONGEST_GAP, "a damaged time fills no disk"


def test_a_frame_of_another_size_is_fitted(tmp_path, capfd):
    output = AnnotatedVideo(str(tmp_path / "out.mp4"), 1)
    for shape in ((48, 64, 3), (96, 100, 3)):
        output.write(InputImage("", "", np.zeros(shape, np.uint8)), row("camera"))
    output.close()
    assert [frame.shape for frame in frames(tmp_path / "out.mp4")[0]] == [(48, 64, 3)] * 2
    assert capfd.readouterr() == ("", ""), "nothing from FFmpeg"


def refused(outcome, words, code=2):
    assert outcome.code == code and "Traceback" not in outcome.err
    assert words in outcome.err.splitlines()[-1]


def test_what_is_not_one_video_is_refused(infer, video, pictures, tmp_path):
    out = tmp_path / "out.mp4"
    refused(infer(pictures, "--annotate", out), "--annotate takes one video")
    refused(infer(video, video, "--annotate", out), "--annotate takes one video")
    refused(infer(video, "--annotate", tmp_path / "out.gif"), "must end with .avi or .mp4")
    refused(infer(video, "--annotate", out, "--only", "face"), "leave out --only")
    refused(infer(video, "--annotate", video), "among the images")
    assert not out.exists()


def test_no_file_is_replaced(infer, video, tmp_path):
    other = tmp_path / "other.avi"
    shutil.copy(video, str(other))
    before = other.read_bytes()
    refused(infer(video, "--annotate", other), "other.avi: exists; remove it or name another")
    assert other.read_bytes() == before


def test_a_folder_that_cannot_be_written(infer, video, tmp_path):
    (tmp_path / "file").write_text("")
    refused(infer(video, "--annotate", tmp_path / "file" / "out.mp4"), "file")


def test_without_a_codec_one_line_says_so(infer, video, tmp_path, monkeypatch):
    monkeypatch.setitem(annotated_video.CODECS, ".mp4", ("zzzz",))
    refused(infer(video, "--annotate", tmp_path / "out.mp4"), "this OpenCV writes no such video")
    assert sorted(os.listdir(str(tmp_path))) == ["film.avi"]


def test_a_damaged_film_leaves_no_video(infer, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 500)
    outcome = infer(tmp_path / "broken.mp4", "--annotate", tmp_path / "out.mp4")
    assert outcome.code == 1 and "no image could be classified" in outcome.err
    assert os.listdir(str(tmp_path)) == ["broken.mp4"]


def test_a_film_that_is_cut_off_has_the_frames_before(infer, video, tmp_path):
    with open(video, "rb") as stream:
        whole = stream.read()
    (tmp_path / "cut.avi").write_bytes(whole[:len(whole) // 2])
    outcome = infer(tmp_path / "cut.avi", "--annotate", tmp_path / "out.mp4", "--fps", 10)
    assert outcome.code == 0 and "ends at frame" in outcome.err
    assert 0 < len(frames(tmp_path / "out.mp4")[0]) < 30


def test_a_full_disk_leaves_no_half_video(tmp_path, monkeypatch):
    """OpenCV does not say that it could not write: the file is read again."""
    output = AnnotatedVideo(str(tmp_path / "out.avi"), 10)
    for _ in range(20):
        output.write(InputImage("", "", np.zeros((48, 64, 3), np.uint8)), row("camera"))
    release = cv2.VideoWriter.release

    class CutOff:
        def __init__(self, writer, path):
            self.writer, self.path = writer, path

        def release(self):
            release(self.writer)
            os.truncate(self.path, 100)

    output._writer = CutOff(output._writer, output._temporary)
    with pytest.raises(UserError, match="out.avi: was not written whole; check the free disk"):
        output.close()
    assert os.listdir(str(tmp_path)) == []


def test_more_frames_than_a_video_plays_are_refused(infer, video, tmp_path):
    refused(infer(video, "--annotate", tmp_path / "out.mp4", "--fps", 121), "lower --fps")
    assert infer(video, "--fps", 1e7).code == 2

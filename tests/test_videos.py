"""Frames of videos and of a camera."""

import os

import cv2
import numpy as np

from classify import finding


def test_video_frames(video):
    pictures = list(finding.find_inputs([video], frames_per_second=1.0))
    assert [each.name for each in pictures] == [
        video + "@0.00s", video + "@1.00s", video + "@2.00s"]
    for channel, picture in enumerate(pictures):
        assert picture.read().shape == (48, 64, 3)
        assert picture.read().mean(axis=(0, 1)).argmax() == channel
    assert len(list(finding.find_inputs([video], frames_per_second=5))) == 15
    assert len(list(finding.find_inputs([video], frames_per_second=1000))) == 30


def test_classifying_a_video(infer, video, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 500)
    outcome = infer(video, broken, "--sort-into", tmp_path / "sorted", "--threshold", 0,
                    "--heatmap", tmp_path / "maps")
    assert outcome.code == 0 and len(outcome.out.splitlines()) == 3
    assert "broken.mp4: not a video that OpenCV reads" in outcome.err
    expected = ["film.avi-{:07d}.jpg".format(number) for number in (0, 10, 20)]
    assert sorted(os.listdir(str(tmp_path / "sorted" / "face"))) == expected
    assert sorted(os.listdir(str(tmp_path / "maps"))) == expected


def test_large_frames_are_shrunk(tmp_path):
    path = str(tmp_path / "large.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, (2560, 640))
    writer.write(np.zeros((640, 2560, 3), np.uint8))
    writer.release()
    (picture,) = finding.find_inputs([path])
    assert picture.read().shape == (320, 1280, 3)


def test_a_camera_that_is_not_there(infer):
    outcome = infer("--camera", 99)
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith("error: camera 99: does not open")
    assert "Traceback" not in outcome.err


def test_camera_frames_come_one_by_one(infer, video, monkeypatch):
    """A recorded film in the camera's place."""
    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: real(video))
    outcome = infer("--camera", 0)
    assert outcome.code == 0 and len(outcome.out.splitlines()) == 30
    assert "camera 0 frame 29" in outcome.out

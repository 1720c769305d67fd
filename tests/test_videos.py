"""Frames of videos and of a camera."""

import os
import shutil

import cv2
import numpy as np
import pytest

from darknet_face.classify import find_inputs, videos
from darknet_face.images.decode import BadImage


def test_video_frames(video):
    pictures = list(find_inputs.find_inputs([video], frames_per_second=1.0))
    assert [each.name for each in pictures] == [
        video + "@0.00s", video + "@1.00s", video + "@2.00s"]
    for channel, picture in enumerate(pictures):
        assert picture.read().shape == (48, 64, 3)
        assert picture.read().mean(axis=(0, 1)).argmax() == channel
    assert len(list(find_inputs.find_inputs([video], frames_per_second=5))) == 15
    assert len(list(find_inputs.find_inputs([video], frames_per_second=1000))) == 30


def test_frames_are_labelled_and_taken_by_their_own_time(tmp_path):
    """A film that stands still for a second after every fifth frame, as telephones record it."""
    path = tmp_path / "film.mkv"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(15):  # more would make a second cluster
        writer.write(np.full((48, 64, 3), 10 * number, np.uint8))
    writer.release()
    times = [100 * number + 1000 * (number // 5) for number in range(15)]  # in milliseconds
    content, waiting = bytearray(path.read_bytes()), list(times)
    for start in range(4, len(content) - 2):
        # A block of Matroska: the track's number, 16 bits of time, flags, and here a JPEG.
        if content[start:start + 3] == b"\xff\xd8\xff" and content[start - 4] == 0x81:
            content[start - 3:start - 1] = waiting.pop(0).to_bytes(2, "big")
    assert not waiting
    path.write_bytes(content)
    for rate, expected in ((1000, times), (1, [0, 1500, 3000])):
        images = list(videos.video_frames(str(path), rate))
        assert [image.name for image in images] == [
            "{}@{:.2f}s".format(path, each / 1000) for each in expected], rate
        for image, each in zip(images, expected):
            assert image.read().mean() == pytest.approx(10 * times.index(each), abs=3)


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
    (picture,) = find_inputs.find_inputs([path])
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


class HostileDecoder:
    """Promises frames for ever and returns none, as some do on damaged files."""

    def __init__(self, answer, good=()):
        self.answer, self.good, self.index, self.released = answer, good, -1, False

    def grab(self):
        self.index += 1
        return True

    def get(self, _):
        return 0  # no time, as in a raw stream

    def retrieve(self):
        if self.index in self.good:
            return True, np.full((4, 4, 3), self.index, np.uint8)
        return self.answer

    def release(self):
        self.released = True


@pytest.mark.parametrize("answer", [
    (False, None), (True, None), (True, np.zeros((0, 0, 3), np.uint8))])
@pytest.mark.parametrize("step", [1, 25000])
def test_a_decoder_that_returns_nothing_is_given_up(answer, step):
    capture = HostileDecoder(answer)
    with pytest.raises(BadImage, match="frames 0 to 99 do not decode"):
        list(videos.Frames(capture, step / 25))
    assert capture.released


def test_the_next_whole_frame_replaces_a_damaged_one():
    capture = HostileDecoder((False, None), good={0, 1, 12, 20, 21})
    frames = []
    with pytest.raises(BadImage, match="frames 30 to 129"):
        for index, _, frame in videos.Frames(capture, 0.4):
            frames.append(index)
            assert frame[0, 0, 0] == index
    assert frames == [0, 12, 20]


def test_stills_with_the_name_of_a_video(infer, pictures, tmp_path):
    """Also with digits in it, which OpenCV takes for a series of images."""
    names = [str(tmp_path / name) for name in ("still.mp4", "still01.avi", "page.ts")]
    for name in names[:2]:
        shutil.copy(pictures + "/00.png", name)
    shutil.copy(pictures + "/02.png", str(tmp_path / "still02.avi"))
    (tmp_path / "page.ts").write_text("export const a = 1;")
    outcome = infer(*names)
    assert outcome.code == 0
    assert [line.split()[-1] for line in outcome.out.splitlines()] == names[:2]
    assert outcome.err.count("page.ts: not a video that OpenCV reads") == 1


@pytest.mark.parametrize("others", [None, "rtsp_transport;udp"])
def test_a_playlist_opens_no_other_file(tmp_path, video, monkeypatch, others):
    """FFmpeg goes by the content; options of others in this process stay as they are."""
    monkeypatch.delenv(videos.OPTIONS, raising=False)
    if others:
        monkeypatch.setenv(videos.OPTIONS, others)
    shutil.copy(video, str(tmp_path / "other.avi"))
    path = tmp_path / "list.mp4"
    path.write_text("ffconcat version 1.0\nfile other.avi\n")
    (image,) = videos.video_frames(str(path), 1)
    with pytest.raises(BadImage, match="not a video"):
        image.read()
    assert os.environ.get(videos.OPTIONS) == others
    assert len(list(videos.video_frames(str(tmp_path / "other.avi"), 1))) == 3


@pytest.mark.parametrize("extension", [".avi", ".mkv", ".mp4", ".mov", ".m4v", ".3gp"])
def test_readers_of_the_extensions(tmp_path, extension):
    path = str(tmp_path / ("film" + extension))
    codec = cv2.VideoWriter_fourcc(*("MJPG" if extension == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(path, codec, 10, (64, 48))
    for _ in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    assert len(list(videos.video_frames(path, 10))) == 3


@pytest.mark.parametrize("rate", [1, 10])
def test_a_video_that_is_cut_off_is_said(tmp_path, video, capsys, rate):
    assert len(list(videos.video_frames(video, rate))) == 3 * rate
    assert capsys.readouterr().err == ""
    path = tmp_path / "cut.avi"
    with open(video, "rb") as stream:
        whole = stream.read()
    path.write_bytes(whole[:len(whole) // 2])
    assert 0 < len(list(videos.video_frames(str(path), rate))) < 3 * rate
    error = capsys.readouterr().err
    assert error.startswith("warning: {}: ends at frame ".format(path)) and "of about 30" in error


@pytest.mark.parametrize("extension", [".3gp", ".FLV", ".wmv", ".ts"])
def test_extensions_of_videos(tmp_path, extension):
    path = tmp_path / ("film" + extension)
    path.write_bytes(b"damaged")
    (image,) = find_inputs.find_inputs([str(path)])
    with pytest.raises(BadImage, match="not a video"):
        image.read()
    (image,) = find_inputs.find_inputs([str(tmp_path / ("none" + extension))])
    with pytest.raises(BadImage, match="no such file"):
        image.read()


def test_damaged_videos_end(tmp_path, video, capfd):
    """Bytes changed, cut off, zeroed: frames, or a cause, and nothing from OpenCV itself."""
    with open(video, "rb") as stream:
        whole = stream.read()
    random = np.random.RandomState(0)
    for number in range(12):
        content = bytearray(whole)
        for place in random.randint(0, len(content), random.choice([5, 100, 2000])):
            content[place] = random.randint(256)
        path = tmp_path / "damaged{:02d}.avi".format(number)
        path.write_bytes(content[:len(content) * random.randint(1, 100) // 100])
        for image in find_inputs.find_inputs([str(path)], 10):
            if isinstance(image.content, BadImage):
                assert str(image.content)
            else:
                assert image.read().shape[2] == 3
        out, err = capfd.readouterr()
        assert not out and err.count("\n") <= 1
        assert not err or err.startswith("warning: {}: ends at frame ".format(path))

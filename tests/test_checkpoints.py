"""The files of checkpoints: the newest is found, and nothing that is half written stays."""

import os
import resource

import pytest

from darknet_face.console import UserError
from darknet_face.runtime.session import tf
from darknet_face.weights.checkpoints import (
    keep_only,
    newest_checkpoint,
    newest_steps,
    save_checkpoint,
)


@pytest.fixture
def saver_and_session():
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("numbers", [1000000])
        session.run(tf.global_variables_initializer())
        yield tf.train.Saver(max_to_keep=None, save_relative_paths=True), session


def test_a_checkpoint_that_finds_no_room_leaves_nothing(saver_and_session, tmp_path):
    first = save_checkpoint(*saver_and_session, str(tmp_path), 1)
    before = sorted(os.listdir(str(tmp_path)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000000, limits[1]))
    try:
        with pytest.raises(UserError, match="step 2 can't be written") as error:
            save_checkpoint(*saver_and_session, str(tmp_path), 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.exit_code == 1 and "[[" not in str(error.value)
    assert "File too large" in str(error.value) and "\n" not in str(error.value)
    assert sorted(os.listdir(str(tmp_path))) == before
    assert newest_checkpoint(str(tmp_path)) == first


@pytest.mark.parametrize("note", [None, b"", b"text", b"\xf0\x28\x8c",
                                  b'model_checkpoint_path: "/nowhere/model-3"'])
def test_the_newest_is_found_whatever_tensorflow_noted(saver_and_session, tmp_path, note):
    first, second = (save_checkpoint(*saver_and_session, str(tmp_path), step) for step in (9, 10))
    (tmp_path / "checkpoint").unlink()
    if note is not None:
        (tmp_path / "checkpoint").write_bytes(note)
    assert newest_checkpoint(str(tmp_path)) == second
    os.remove(second + ".index")
    assert newest_checkpoint(str(tmp_path)) == first
    os.remove(first + ".index")
    assert newest_checkpoint(str(tmp_path)) is None
    assert newest_checkpoint(str(tmp_path / "missing")) is None


def test_the_newest_checkpoints_stay_and_what_kills_left_goes(tmp_path):
    left = ("model-{}.data-00000-of-00001", "model-{}.index")
    half = ["model-12.data-00000-of-00001.tempstate123", "model-12.index.tempstate9"]
    foreign = ["settings.json", "checkpoint", "model-3.index.bak", "model-mine.index"]
    names = [name.format(step) for name in left for step in (3, 9, 10)] + half + foreign
    for name in names:
        (tmp_path / name).write_text("")
    assert newest_steps(str(tmp_path), 2) == [9, 10]
    keep_only(str(tmp_path), [9, 10])
    expected = [name for name in names if name not in half + [each.format(3) for each in left]]
    assert sorted(os.listdir(str(tmp_path))) == sorted(expected)
    keep_only(str(tmp_path), [])
    assert sorted(os.listdir(str(tmp_path))) == sorted(foreign)
    keep_only(str(tmp_path / "none"), [])

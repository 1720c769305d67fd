"""Names that TensorFlow would take for patterns."""

import os
import tempfile

import numpy as np
import pytest

from darknet_face.console import UserError
from darknet_face.runtime.session import tf
from darknet_face.weights.literal_names import literal


@pytest.fixture(params=["plain", "a[1]", "b\\c", "[x]*?", "ü ß]"])
def folder(request, tmp_path):
    (tmp_path / request.param).mkdir()
    return str(tmp_path / request.param)


@pytest.mark.parametrize("name", ["model", "model[2]"])
def test_checkpoints_are_found(folder, name):
    prefix = os.path.join(folder, name)
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable("v", initializer=np.arange(3))
        session.run(variable.initializer)
        saver = tf.train.Saver()
        saver.save(session, prefix, 7, write_meta_graph=False)
        session.run(variable.assign([0, 0, 0]))
        with literal(prefix + "-7") as found:
            saver.restore(session, found)
            assert tf.train.NewCheckpointReader(found).get_tensor("v").tolist() == [0, 1, 2]
        assert session.run(variable).tolist() == [0, 1, 2]


def test_folders_are_found_and_the_links_do_not_stay(folder):
    with open(os.path.join(folder, "saved_model.pb"), "w") as stream:
        stream.write("content")
    with literal(folder) as found:
        assert not set("[]\\*?") & set(found)
        assert os.listdir(found) == ["saved_model.pb"]
    assert found == folder or not os.path.lexists(found)


def test_a_temporary_folder_with_such_a_name_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t[1]"))
    with pytest.raises(UserError, match="set TMPDIR"), literal(str(tmp_path / "a[1]")):
        pass

"""The input size travels with the weights, in every form of file."""

import json
import os
import shutil

import pytest

from darknet_face.console import UserError
from darknet_face.exporters.savedmodel import write_saved_model
from darknet_face.weights import darknet_weights
from darknet_face.weights.metadata import (
    check_metadata,
    metadata_beside,
    metadata_of_checkpoint,
)
from darknet_face.weights.model_file import read_model
from darknet_face.weights.npz import write_npz

SOME = {"image_size": 64, "class_names": ["FACE", "NON_FACE"], "step": 3, "threshold": 0.25}


def test_every_form_tells_its_size(tiny_model, tmp_path):
    npz = str(tmp_path / "w.npz")
    write_npz(npz, tiny_model.weights, metadata=SOME)
    assert read_model(npz).metadata == SOME

    lone = str(tmp_path / "lone.pb")
    os.link(tiny_model.pb, lone)
    assert read_model(lone).metadata == {"image_size": 32}
    described = read_model(tiny_model.pb).metadata
    assert described == {"image_size": 32, "class_names": ["FACE", "NON_FACE"], "step": 0}

    cfg, weights = str(tmp_path / "face.cfg"), str(tmp_path / "face.weights")
    darknet_weights.write_network(cfg, weights, tiny_model.weights, 96)
    assert read_model(weights).metadata == {"image_size": 96}
    shutil.move(cfg, str(tmp_path / "elsewhere.cfg"))
    assert read_model(weights, cfg=str(tmp_path / "elsewhere.cfg")).metadata == {"image_size": 96}

    write_saved_model(tiny_model.weights, 64, str(tmp_path / "model" / "1"))
    for name in ("model", "model/1", "model/1/saved_model.pb"):
        assert read_model(str(tmp_path / name)).metadata == {
            "image_size": 64, "class_names": ["FACE", "NON_FACE"]}


def test_exports_keep_what_the_weights_say(tiny_model, tmp_path):
    folder = str(tmp_path / "1")
    write_saved_model(tiny_model.weights, 96, folder, dict(SOME, search_bias=1.5))
    assert read_model(folder).metadata == dict(SOME, search_bias=1.5, image_size=96)
    cfg, weights = str(tmp_path / "face.cfg"), str(tmp_path / "face.weights")
    darknet_weights.write_network(cfg, weights, tiny_model.weights, 96, ["# threshold 0.25"])
    with open(cfg) as stream:
        assert "# threshold 0.25\n" in stream.readlines()
    assert len(read_model(weights).weights) == 92


def test_files_of_older_versions(tiny_model, tmp_path):
    """Beside an .npz, in the .json of its name or of the frozen graph in the same folder."""
    old = str(tmp_path / "old.npz")
    write_npz(old, tiny_model.weights)
    assert read_model(old).metadata == {}
    (tmp_path / "darknet19_frozen.json").write_text('{"image_size": 96, "sha256": "0"}')
    assert read_model(old).metadata == {"image_size": 96}
    for encoding in ("utf-8", "utf-8-sig"):  # as some editors write it
        (tmp_path / "old.json").write_text(json.dumps(SOME), encoding=encoding)
        assert read_model(old).metadata == SOME


def test_a_checkpoint_has_settings_beside_it(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    assert metadata_of_checkpoint(str(folder / "model-3")) == {}
    (tmp_path / "darknet19_frozen.json").write_text('{"image_size": 96}')
    assert metadata_of_checkpoint(str(folder / "model-3")) == {"image_size": 96}
    (folder / "settings.json").write_text('{"image_size": 64, "batch_size": 8}')
    assert metadata_of_checkpoint(str(folder / "model-3")) == {"image_size": 64}
    assert metadata_of_checkpoint(str(tmp_path / "best" / "model-3")) == {"image_size": 64}


@pytest.mark.parametrize("text", [
    '{"image_size": NaN}', '{"image_size": 1e400}', '{"image_size": 320000}',
    '{"image_size": 4128}', '{"image_size": 0}', '{"image_size": -32}', '{"image_size": 100}',
    '{"image_size": true}', '{"image_size": "64"}', '{"image_size": null}',
    '{"image_size": 64.0}', '{"class_names": "FACE"}', '{"class_names": []}',
    '{"class_names": [1]}', '{"step": -1}', '{"step": 1e400}', '{"threshold": NaN}',
    '{"threshold": 1.5}', '{"threshold": true}', '{"image_size": ' + "9" * 5000 + "}", "[]", "{",
])
def test_absurd_metadata_are_one_line(tmp_path, text):
    (tmp_path / "w.json").write_text(text)
    with pytest.raises(UserError) as caught:
        metadata_beside(str(tmp_path / "w.npz"))
    assert str(tmp_path / "w.json") in str(caught.value) and len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_what_is_missing_or_unknown():
    assert check_metadata({}, "x") == {}
    assert check_metadata({"image_size": 4096, "other": float("nan")}, "x") == {"image_size": 4096}

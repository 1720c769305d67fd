"""Which weights are used, and at which input size."""

import os
import shutil

import pytest

from darknet_face.console import UserError
from darknet_face.weights import released
from darknet_face.weights.npz import read_npz, write_npz


def test_one_s_own_model_comes_first(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(released, "RELEASED", str(tmp_path / "darknet19_face.npz"))
    assert released.choose_model(tiny_model.folder) == (tiny_model.npz, 32)
    (tmp_path / "darknet19_face.npz").write_bytes(b"")
    assert released.choose_model(tiny_model.folder) == (tiny_model.npz, 32)
    none = str(tmp_path / "none")
    assert released.choose_model(none) == (str(tmp_path / "darknet19_face.npz"), 224)
    os.remove(str(tmp_path / "darknet19_face.npz"))
    with pytest.raises(UserError, match="extract_weights"):
        read_npz(released.choose_model(none)[0])
    other = tmp_path / "other.npz"
    other.with_suffix(".json").write_text('{"image_size": 96}')
    assert released.choose_model(none, str(other)) == (str(other), 96)
    other.with_suffix(".json").write_text('{"image_size": 100}')
    with pytest.raises(UserError, match="image_size"):
        released.choose_model(none, str(other))


def age(path, days):
    os.utime(str(path), (1e9 - 86400 * days,) * 2)


def test_the_newest_of_one_s_own_models(tiny_model, tmp_path):
    """Extracted weights, frozen graph or best checkpoint, whichever the last command wrote."""
    folder = str(tmp_path)
    assert released.choose_model(folder)[0] == released.RELEASED
    npz, graph = tmp_path / "darknet19_weights.npz", tmp_path / "darknet19_frozen.pb"
    for path in (npz, graph, graph.with_suffix(".json")):
        shutil.copy(os.path.join(tiny_model.folder, path.name), folder)
    age(npz, 1)
    age(graph, 2)
    assert released.choose_model(folder) == (str(npz), 32)
    age(graph, 0)
    assert released.choose_model(folder) == (str(graph), 32), "trained again, not extracted yet"
    age(graph, 1)
    assert released.choose_model(folder) == (str(npz), 32), "extracted within the same second"
    for name, text in (("best/best.json", "{}"), ("checkpoints/settings.json",
                                                  '{"image_size": 64}')):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    assert released.choose_model(folder) == (str(tmp_path / "best"), 64), "training goes on"
    assert released.choose_model(folder, "other.weights")[0] == "other.weights"
    assert released.choose_model(folder, "released") == (released.RELEASED, 224)


def test_another_size_than_that_of_the_training_is_said(tiny_model, tmp_path, capsys):
    assert released.choose_model(tiny_model.folder, image_size=64) == (tiny_model.npz, 64)
    assert "trained at 32 x 32, run at 64 x 64" in capsys.readouterr().err
    assert released.choose_model(tiny_model.folder, image_size=32) == (tiny_model.npz, 32)
    assert capsys.readouterr().err == ""
    lone = str(tmp_path / "lone.npz")
    shutil.copy(tiny_model.npz, lone)
    assert released.choose_model("", lone)[1] == 224
    assert "does not say its input size; 224 x 224 is used" in capsys.readouterr().err


def test_the_threshold_in_use_is_said(tiny_model, tmp_path):
    path = str(tmp_path / "w.npz")
    write_npz(path, tiny_model.weights, metadata={"threshold": 0.25})
    assert released.threshold_of(path) == 0.25 and released.threshold_of(path, 0.75) == 0.75
    assert released.threshold_of(tiny_model.npz) == 0.5
    assert released.describe_model(path, 32).endswith(
        "w.npz, input 32 x 32, threshold 0.25 (stored with the model)")
    assert released.describe_model(path, 32, 0.75).endswith("threshold 0.75")

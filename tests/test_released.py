"""Which weights are used, and at which input size."""

import os

import pytest

from model import released
from model.npz import read_npz
from utils import UserError


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


def test_a_frozen_graph_of_one_s_own(tiny_model, tmp_path):
    """Before the released weights, where the caller can run one, and after one's own .npz."""
    folder = str(tmp_path)
    assert "darknet19_frozen" not in released.choose_model(folder, or_frozen=True)[0]
    for name in ("darknet19_frozen.pb", "darknet19_frozen.json"):
        os.link(os.path.join(tiny_model.folder, name), str(tmp_path / name))
    assert released.choose_model(folder, or_frozen=True) == (
        str(tmp_path / "darknet19_frozen.pb"), 32)
    assert released.choose_model(folder)[0] == released.RELEASED
    (tmp_path / "darknet19_weights.npz").write_bytes(b"")
    assert released.choose_model(folder, or_frozen=True) == (
        str(tmp_path / "darknet19_weights.npz"), 32)
    assert released.choose_model(folder, "other.weights")[0] == "other.weights"
    assert released.choose_model(tiny_model.folder, image_size=64) == (tiny_model.npz, 64)

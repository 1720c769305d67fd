"""The options of a training: the command line and the record agree."""

import pytest

from clr import POLICIES
from darknet_face.training.settings import RUN_SETTINGS, Settings, from_command_line


def test_the_defaults_of_the_command_line_are_those_of_the_record():
    assert from_command_line(POLICIES, []) == Settings()
    assert set(RUN_SETTINGS) < set(Settings._fields)


def test_each_option_sets_its_field():
    settings = from_command_line(POLICIES, [
        "--data-dir", "d", "--image-size", "64", "--batch-size", "4", "--max-lr", "0.1",
        "--init-from", "w.npz", "--restart", "--best-by", "val_loss", "--fp16-compression"])
    assert settings == Settings(
        data_dir="d", image_size=64, batch_size=4, max_lr=0.1, init_from="w.npz", restart=True,
        best_by="val_loss", fp16_compression=True)


def test_help_names_every_option_and_its_default(capsys):
    with pytest.raises(SystemExit) as ended:
        from_command_line(POLICIES, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    for name in Settings._fields:
        assert "--" + name.replace("_", "-") in text
    assert "(default: triangular)" in text and "(default: 0.998)" in text
    assert "(default: None)" not in text

"""The training history: what is written is read again, and drawn."""

import io

import numpy as np
import pytest
from PIL import Image

from training import history
from training.settings import Settings
from training.summaries import batch_summary
from utils import UserError


@pytest.fixture
def rows():
    return [dict({column: 1.0 / (epoch + number + 1) for number, column in enumerate(
        history.COLUMNS)}, epoch=epoch, step=10 * epoch) for epoch in range(1, 5)]


def test_round_trip(rows, tmp_path):
    path = str(tmp_path / "history.csv")
    assert history.read_history(path) == []
    history.write_history(path, rows)
    assert history.read_history(path) == rows


@pytest.mark.parametrize("content", [b"epoch,step\n1,2\n", b"\xff\xd8\xff", b"epoch\n\0\n"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "history.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match="history.csv"):
        history.read_history(str(path))


@pytest.mark.parametrize("column, value", [
    ("epoch", "nan"), ("epoch", "1e400"), ("epoch", "1.5"), ("step", "-3"), ("step", "1e30"),
    ("step", "30"), ("val_loss", "nan"), ("val_loss", "inf"), ("train_loss", "1e300"),
    ("val_accuracy", "1.01"), ("disturbed_false_positive_rate", "2"), ("learning_rate", "-1"),
    ("images_per_second", ""), ("val_roc_auc", "9" * 400)])
def test_numbers_out_of_range_are_refused(rows, tmp_path, column, value):
    path = tmp_path / "history.csv"
    history.write_history(str(path), rows)
    lines = path.read_text().splitlines()
    cells = lines[2].split(",")
    cells[history.COLUMNS.index(column)] = value
    path.write_text("\n".join(lines[:2] + [",".join(cells)] + lines[3:]))
    with pytest.raises(UserError, match="history.csv: not a training history"):
        history.read_history(str(path))


@pytest.mark.parametrize("count", [1, 4])
def test_pictures_show_the_curves_on_light_paper(rows, tmp_path, count):
    curves, summary = str(tmp_path / "history.png"), str(tmp_path / "summary.png")
    history.plot_history(curves, rows[:count])
    history.plot_training_summary(summary, rows[:count], rows[0], {"image_size": 32})
    for path in (curves, summary):
        drawn = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert (drawn[:3] == 250).all(), "opaque, whatever page it stands on"
        for colour in ((0, 114, 178), (213, 94, 0), (0, 158, 115)):
            assert (np.abs(drawn - colour).max(axis=2) < 8).sum() > 100, "each curve is there"


def test_the_range_test_shows_a_change_of_accuracy_at_its_rate(tmp_path):
    late = np.arange(400) >= 200
    history.plot_range_test(
        str(tmp_path / "range.png"), np.column_stack([np.linspace(0, 1, 400), 1.0 - late, late]))
    drawn = np.asarray(Image.open(str(tmp_path / "range.png")).convert("RGB")).astype(int)
    change = drawn[len(drawn) // 4]  # a line of pixels between accuracies 0 and 1
    each_batch, mean = ((np.abs(change - colour).max(axis=1) < 40).nonzero()[0].mean()
                        for colour in ((175, 209, 228), (213, 94, 0)))
    assert abs(each_batch - mean) < 8


def test_the_batch_for_tensorboard_is_a_picture():
    images = np.random.RandomState(0).randint(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    (value,) = batch_summary(images, [0, 0, 0, 1, 1, 1]).value
    sheet = Image.open(io.BytesIO(value.image.encoded_image_string))
    assert sheet.size == (value.image.width, value.image.height)
    assert value.tag == "augmented_batch"


def test_a_history_without_rows_costs_the_chart_alone(tmp_path, capsys):
    path = tmp_path / "history.csv"
    history.write_history(str(path), [])
    history.summarise(Settings(log_dir=str(tmp_path)), {"epoch": 1})
    assert "has no rows" in capsys.readouterr().err
    assert not (tmp_path / "training_summary.png").exists()

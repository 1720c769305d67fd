"""The training history: what is written is read again, and drawn."""

import os

import numpy as np
import pytest
from PIL import Image

from darknet_face.console import UserError
from darknet_face.training import curves, history
from darknet_face.training.history import HISTORY
from darknet_face.training.resume import plan_run
from darknet_face.training.settings import Settings


@pytest.fixture
def rows():
    return [dict({column: 1.0 / (epoch + number + 1) for number, column in enumerate(
        HISTORY.columns)}, epoch=epoch, step=10 * epoch) for epoch in range(1, 5)]


def test_round_trip(rows, tmp_path):
    path = str(tmp_path / "history.csv")
    assert history.read_history(path) == []
    HISTORY.write(path, rows)
    assert history.read_history(path) == rows


@pytest.fixture
def with_start(rows):
    """The same after a validation of initial weights."""
    validation = {column: 0.25 for column in HISTORY.columns
                  if column.startswith(("val_", "disturbed_"))}
    return [history.start_row(validation)] + rows


def test_the_row_of_start_weights_has_no_metrics_of_training(with_start, tmp_path):
    path = str(tmp_path / "history.csv")
    HISTORY.write(path, with_start)
    read = history.read_history(path)
    assert read[1:] == with_start[1:]
    assert {name for name, value in read[0].items() if np.isnan(value)} == set(history.OF_TRAINING)
    assert (read[0]["epoch"], read[0]["step"], read[0]["val_loss"]) == (0, 0, 0.25)
    with open(path) as stream:
        text = stream.read()
    for wrong in (text.replace("0,0,,", "0,0,0.1,"), text.replace("\n0,0,", "\n0,1,"),
                  text.replace("\n1,10,", "\n1,0,")):
        assert wrong != text
        with open(path, "w") as stream:
            stream.write(wrong)
        with pytest.raises(UserError, match="not a training history"):
            history.read_history(path)


@pytest.mark.parametrize("losses, patience, expected", [
    ((3, 2, 1), 1, False), ((3, 2, 2), 1, True), ((3, 1, 2), 2, False), ((1, 2, 3), 2, True),
    ((1, 2, 3), 0, False), ((1,), 1, False), ((), 1, False)])
def test_patience(losses, patience, expected):
    """In epochs since the best, the initial weights being epoch 0."""
    rows = [{"epoch": epoch, "val_loss": loss} for epoch, loss in enumerate(losses)]
    assert history.is_out_of_patience(rows, "val_loss", patience) == expected


def test_what_the_training_gave(with_start):
    start, first = with_start[0], with_start[1]
    assert history.compare_with_start(with_start[1:], first, "val_loss") == (None, False)
    assert history.compare_with_start(with_start[:1], start, "val_loss") == (None, False)
    text, is_worse = history.compare_with_start(with_start, start, "val_loss")
    assert is_worse and "0.2500 before" in text
    assert "the frozen graph has the initial weights" in text
    better = dict(first, val_loss=0.125, val_accuracy=0.75)
    text, is_worse = history.compare_with_start([start, better], better, "val_loss")
    assert not is_worse and "0.2500 with the initial weights, 0.1250 and 0.7500" in text
    start["val_accuracy"] = 0.875
    text, is_worse = history.compare_with_start([start, better], better, "val_loss")
    assert is_worse and "the accuracy is worse" in text


def test_curves_with_start_weights_alone_and_with_epochs(with_start, tmp_path, recwarn):
    for count in (1, 5):
        curves.plot_history(str(tmp_path / "curves.png"), with_start[:count])
        curves.plot_training_summary(str(tmp_path / "all.png"), with_start[:count],
                                      with_start[0], {})
    assert not recwarn.list


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
    HISTORY.write(str(path), rows)
    lines = path.read_text().splitlines()
    cells = lines[2].split(",")
    cells[HISTORY.columns.index(column)] = value
    path.write_text("\n".join(lines[:2] + [",".join(cells)] + lines[3:]))
    with pytest.raises(UserError, match="history.csv: not a training history"):
        history.read_history(str(path))


@pytest.mark.parametrize("count", [1, 4])
def test_pictures_show_the_curves_on_light_paper(rows, tmp_path, count):
    history_png, summary = str(tmp_path / "history.png"), str(tmp_path / "summary.png")
    curves.plot_history(history_png, rows[:count])
    curves.plot_training_summary(summary, rows[:count], rows[0], {"image_size": 32})
    for path in (history_png, summary):
        drawn = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert (drawn[:3] == 250).all(), "opaque, whatever page it stands on"
        for colour in ((0, 114, 178), (213, 94, 0), (0, 158, 115)):
            assert (np.abs(drawn - colour).max(axis=2) < 8).sum() > 100, "each curve is there"


def test_the_range_test_shows_a_change_of_accuracy_at_its_rate(tmp_path):
    late = np.arange(400) >= 200
    curves.plot_range_test(
        str(tmp_path / "range.png"), np.column_stack([np.linspace(0, 1, 400), 1.0 - late, late]))
    drawn = np.asarray(Image.open(str(tmp_path / "range.png")).convert("RGB")).astype(int)
    change = drawn[len(drawn) // 4]  # a line of pixels between accuracies 0 and 1
    each_batch, mean = ((np.abs(change - colour).max(axis=1) < 40).nonzero()[0].mean()
                        for colour in ((175, 209, 228), (213, 94, 0)))
    assert abs(each_batch - mean) < 8


def test_a_history_without_rows_costs_the_chart_alone(tmp_path, capsys):
    path = tmp_path / "history.csv"
    HISTORY.write(str(path), [])
    history.summarise(Settings(log_dir=str(tmp_path)), {"epoch": 1})
    assert "has no rows" in capsys.readouterr().err
    assert not (tmp_path / "training_summary.png").exists()


def test_a_pipe_is_no_history(tmp_path):
    os.mkfifo(str(tmp_path / "history.csv"))  # must not wait for a writer
    for read in (history.read_history, HISTORY.check):
        with pytest.raises(UserError, match="history.csv: not a regular file"):
            read(str(tmp_path / "history.csv"))


def test_a_training_begins_beside_no_other_program_s_files(tmp_path):
    settings = Settings(model_dir=str(tmp_path / "model"), log_dir=str(tmp_path / "logs"))
    for folder in ("model", "logs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "model" / "settings.json").write_text('{"anchors": []}')
    (tmp_path / "logs" / "history.csv").write_text("epoch,loss\n1,0.5\n")
    for restart in (False, True):
        with pytest.raises(UserError, match="history.csv: not a training history"):
            plan_run(settings._replace(restart=restart), {})
        with pytest.raises(UserError, match="model: a detector is trained there"):
            plan_run(settings._replace(restart=restart, log_dir=str(tmp_path)), {})
    assert (tmp_path / "logs" / "history.csv").read_text() == "epoch,loss\n1,0.5\n"

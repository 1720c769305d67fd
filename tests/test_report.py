"""The report: metrics that agree, a page that is valid, whole, and loads nothing from elsewhere."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from urllib.parse import unquote, unquote_to_bytes

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sklearn_metrics

import test as test_script
from darknet_face.evaluation import charts, metrics, report
from darknet_face.evaluation.metrics import Scores
from darknet_face.evaluation.provenance import find_provenance
from darknet_face.images.file_lists import load_split
from darknet_face.runtime.safe_files import read_json
from darknet_face.training.history import HISTORY
from darknet_face.weights import frozen_graph
from darknet_face.weights.model_file import read_model

CHROMIUM = next(filter(None, map(shutil.which, (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None)
# Elements that have no end tag in HTML.
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects elements, checks nesting, and notes whatever points elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.ids, self.references = [], [], [], []
        self.text = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
                self.references.append(value)
            self.references += re.findall(r"url\(([^)]*)\)", value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, "</{}> closes {}".format(tag, self.open[-3:])
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] == "style":
            self.references += re.findall(r"url\(([^)]*)\)|@import", data)


def judged(scores, measured=None):
    return [report.Judgement("single pass", scores, measured or metrics.measure_scores(scores))]


@pytest.fixture(scope="module")
def made(tmp_path_factory, sample_dir, tiny_model):
    """test.py with all its options: the report's folder, what was printed, and the metrics."""
    folder = str(tmp_path_factory.mktemp("report"))
    command = ["test.py", "--data-dir", sample_dir, "--model-dir", tiny_model.folder, "--report",
               folder, "--robustness", "--at-fpr", "0.2", "--json",
               os.path.join(folder, "metrics.json")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", command)
        test_script.main()
    with open(os.path.join(folder, "report.json")) as stream:
        content = json.load(stream)
    with open(os.path.join(folder, "index.html"), encoding="utf-8") as stream:
        return folder, content, stream.read()


@pytest.fixture(scope="module")
def truth(sample_dir, tiny_model):
    """Labels and probabilities of the test images, straight from the frozen graph."""
    split = load_split(sample_dir, "test")
    return split, metrics.score_split(frozen_graph.load(read_model(tiny_model.pb)), split)


def test_json_agrees_with_scikit_learn(made, truth):
    _, content, _ = made
    _, scores = truth
    is_face = scores.labels == 0
    metrics = content["figures"]
    called = scores.face_probabilities >= 0.5
    assert metrics["accuracy"] == sklearn_metrics.accuracy_score(is_face, called)
    assert metrics["roc_auc"] == pytest.approx(
        sklearn_metrics.roc_auc_score(is_face, scores.face_probabilities), abs=1e-9)
    assert metrics["average_precision"] == pytest.approx(
        sklearn_metrics.average_precision_score(is_face, scores.face_probabilities), abs=1e-9)
    assert len(metrics["robustness"]) == 12
    with open(os.path.join(made[0], "metrics.json")) as stream:
        assert json.load(stream) == metrics


def test_json_lists_every_mistake_the_most_confident_first(made, truth):
    _, content, _ = made
    split, scores = truth
    expected = {path for path, label, score in zip(
        scores.paths, scores.labels, scores.face_probabilities) if (score >= 0.5) != (label == 0)}
    assert expected, "random weights must make mistakes"
    assert {os.path.join(content["data_dir"], row["file"])
            for row in content["mistakes"]} == expected
    assert not any(os.path.isabs(row["file"]) for row in content["mistakes"])
    for name, sign in (("NON_FACE", -1), ("FACE", 1)):
        values = [sign * row["face_probability"] for row in content["mistakes"]
                  if row["class"] == name]
        assert values == sorted(values)


def test_page_is_valid_and_self_contained(made):
    _, _, text = made
    assert text.startswith("<!DOCTYPE html>")
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids)), "an id names one element"
    for reference in page.references:
        if os.path.exists(os.path.join(made[0], unquote(reference))):
            continue  # the link to a misclassified image: it is opened, not loaded
        assert reference.startswith(
            ("data:image/jpeg;base64,", "data:image/png;base64,", "#")), reference[:80]
        if reference.startswith("#"):
            assert reference[1:] in page.ids
    assert "http" not in text and "<script" not in text
    tags = [tag for tag, _ in page.elements]
    assert tags.count("html") == tags.count("head") == tags.count("body") == tags.count("h1") == 1
    assert all(attributes.get("alt") for tag, attributes in page.elements if tag == "img")
    assert all(attributes.get("aria-label") for tag, attributes in page.elements if tag == "svg")


def test_page_shows_charts_metrics_and_mistakes(made):
    _, content, text = made
    page = Page(text)
    assert {"confusion", "histogram", "roc", "precision-recall", "reliability", "categories",
            "robustness", "false-positives", "missed-faces", "close-calls"} <= set(page.ids)
    words = " ".join(page.text)
    assert "{:.4f}".format(content["figures"]["roc_auc"]) in words
    assert repr(content["figures"]["at_false_positive_rate"]["threshold"]) in words
    assert "zoomed out, to a half" in words
    for row in content["mistakes"][:5]:
        assert row["file"] in words and "{:.4f}".format(row["face_probability"]) in words
    pictures = [attributes["src"] for tag, attributes in page.elements if tag == "img"]
    tiles = min(24, len(content["mistakes"])) + 12
    assert len(pictures) >= 2 * min(tiles, 20), "each image with its map"
    for uri in pictures:
        image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
        image.load()
        assert max(image.size) == report.TILE


def test_an_image_opens_where_it_lies(made):
    page = Page(made[2])
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert len(links) > 12
    opened = [os.path.realpath(os.path.join(made[0], unquote(link))) for link in links]
    mistakes = {os.path.realpath(os.path.join(made[1]["data_dir"], row["file"]))
                for row in made[1]["mistakes"]}
    assert all(map(os.path.isfile, opened)) and len(mistakes & set(opened)) > 12


@pytest.mark.parametrize("highest", [0.03, 0.8])
def test_the_map_of_a_missed_image_shows_where_it_came_closest(tmp_path, sample_dir, highest):
    """Its colours are scaled; a map that reaches one half is shown as it is."""
    split = load_split(sample_dir, "test")
    paths = [split.faces[0], split.negatives[0]]
    scores = Scores(paths, np.array([0, 1]), np.array([0.01, 0.002]), 0,
                    {paths[0]: (2, 3, 10, 12), paths[1]: (None,) * 4})

    def mapper(image):
        face_map = np.zeros(image.shape[:2], np.float32)
        face_map[:, 12:] = highest
        return face_map

    report.write_report(str(tmp_path), "model", judged(scores), mapper)
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    image, drawn = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(attributes["src"].split(",")[1]))))
        .astype(int) for tag, attributes in page.elements if tag == "img"][:2]
    warm = (drawn[:, -40:, 0] - drawn[:, -40:, 2]).mean()
    assert warm > 25 > 10 > abs(drawn[:, :40, 0] - drawn[:, :40, 2]).mean()
    assert ("map up to 0.03" in " ".join(page.text)) == (highest < 0.5)
    scale = report.TILE / 25
    edge = image[int(9 * scale), int(2.4 * scale)]
    assert edge[2] - edge[0] > 80, "the box is blue"


def test_names_of_files_cannot_break_the_page(tmp_path, sample_dir):
    """Markup, a byte that is not UTF-8, a control character, a formula in a folder's name."""
    source = load_split(sample_dir, "test").faces[0]
    names = [os.path.join(str(tmp_path), name)
             for name in ("<img src=x onerror=alert(1)>.png", os.fsdecode(b"caf\xe9.png"),
                          "$x^$\x1b/_$y_$.png")]
    os.mkdir(os.path.dirname(names[2]))
    for name in names:
        shutil.copy(source, name)
    scores = Scores(names, np.array([0, 1, 1]), np.array([0.2, 0.9, 0.8]), 0)
    folder = str(tmp_path / "report")
    report.write_report(folder, "model", judged(scores))
    with open(os.path.join(folder, "index.html"), encoding="utf-8") as stream:
        text = stream.read()
    page = Page(text)
    assert page.open == [] and "\x1b" not in text
    assert not any("onerror" in attributes for _, attributes in page.elements)
    links = {attributes["href"] for tag, attributes in page.elements if tag == "a"}
    assert {os.path.realpath(os.path.join(os.fsencode(folder), unquote_to_bytes(link)))
            for link in links} == {os.fsencode(os.path.realpath(name)) for name in names}
    assert "<img src=x onerror=alert(1)>.png" in " ".join(page.text)
    with open(os.path.join(folder, "report.json")) as stream:
        assert {row["file"] for row in json.load(stream)["mistakes"]} == set(names)


def test_a_classifier_without_mistakes_has_a_report_too(tmp_path, sample_dir):
    split = load_split(sample_dir, "test")
    scores = Scores(list(split.paths), split.labels, np.where(split.labels == 0, 1.0, 0.0), 0)
    measured = metrics.measure_scores(scores)
    measured["at_false_positive_rate"] = metrics.threshold_at(
        scores.labels, scores.face_probabilities, 0.0)
    report.write_report(str(tmp_path), "model", judged(scores, measured))
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert "categories" not in page.ids
    assert "False positives: 0" in " ".join(page.text)
    assert not {"false-positives", "missed-faces", "close-calls"} & set(page.ids)
    headings = [tag for tag, _ in page.elements].count("h2")
    assert headings == 1, "the charts; nothing is headed that is not there"


def test_close_calls_are_close():
    """In log-odds: with a threshold of 0.001 a probability of 0.4 is far from it."""
    probabilities = np.array([0.6, 0.9999, 0.85, 0.4, 0.0001, 0.7])
    scores = Scores([""] * 6, np.array([0, 0, 0, 1, 1, 1]), probabilities, 0)
    assert report.find_mistakes(scores, 0.5) == (([5], []), [0, 3, 2])
    assert report.find_mistakes(scores, 0.001)[1] == []


def test_numbers_of_pictures_and_names_relative_to_the_data(made, sample_dir):
    page = Page(made[2])
    words = " ".join(page.text)
    assert "pictures" in page.ids
    for name in ("train", "val", "test"):
        split = load_split(sample_dir, name)
        assert re.search(r"{}\s+{}\s+{}\s".format(name, *map(len, split)), words)
    assert sample_dir not in words.replace(made[1]["model"], "")


def train_record(folder, **changes):
    """A history and the record of a frozen graph, as train.py writes them."""
    rows = [dict(dict.fromkeys(HISTORY.columns, 0.5 / epoch), epoch=epoch, step=10 * epoch)
            for epoch in range(1, 5)]
    HISTORY.write(os.path.join(folder, "history.csv"), rows)
    validation = {"val_loss": rows[2]["val_loss"], "val_accuracy": rows[2]["val_accuracy"]}
    record = {"step": 30, "epoch": 3, "validation": dict(validation, **changes)}
    with open(os.path.join(folder, "model.json"), "w") as stream:
        json.dump(record, stream)
    return os.path.join(folder, "model.pb")


def test_training_curve_of_the_model(tmp_path, sample_dir):
    split = load_split(sample_dir, "test")
    scores = Scores(list(split.paths), split.labels, np.where(split.labels == 0, 0.9, 0.1), 0)
    model = train_record(str(tmp_path))
    found = find_provenance(model, sample_dir, str(tmp_path))
    assert found.epoch == 3 and len(found.history) == 4
    report.write_report(str(tmp_path), model, judged(scores), None, found)
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert page.open == [] and "training" in page.ids
    model = train_record(str(tmp_path), val_loss=0.2)
    assert not find_provenance(model, sample_dir, str(tmp_path)).history, "another training's logs"
    assert not find_provenance(model, sample_dir, str(tmp_path / "none")).history
    (tmp_path / "history.csv").write_text("damaged")
    assert not find_provenance(model, str(tmp_path), str(tmp_path)).history


def test_what_train_py_noted_beside_the_graph(tmp_path, sample_dir):
    """The numbers of images of the training, and where its history lies."""
    model = train_record(str(tmp_path))
    record = read_json(str(tmp_path / "model.json"))
    (tmp_path / "logs").mkdir()
    os.rename(str(tmp_path / "history.csv"), str(tmp_path / "logs" / "history.csv"))
    noted = dict(record, log_dir="logs", pictures={"train": [7, 8], "val": [1, 2]})
    (tmp_path / "model.json").write_text(json.dumps(noted))
    found = find_provenance(model, sample_dir, tested=(3, 4))
    assert found.pictures == [("train", 7, 8), ("val", 1, 2), ("test", 3, 4)]
    assert found.epoch == 3 and len(found.history) == 4
    assert find_provenance(str(tmp_path / "no.pb"), tested=(3, 4)).pictures == [("test", 3, 4)]
    for spoilt in ({"pictures": {"train": 5, "val": ["a", "b"]}}, {"pictures": [1]},
                   {"log_dir": 5}, {"log_dir": "a\0b"}):
        (tmp_path / "model.json").write_text(json.dumps(dict(noted, **spoilt)))
        assert find_provenance(model, None, tested=(3, 4)).pictures[-1] == ("test", 3, 4)


@pytest.mark.parametrize("name", ["index.html", "report.json"])
def test_no_other_file_is_replaced(run_script, sample_dir, tiny_model, tmp_path, name):
    (tmp_path / name).write_text("<html>mine</html>")
    outcome = run_script(test_script, "--data-dir", sample_dir, "--model-dir", tiny_model.folder,
                         "--report", tmp_path)
    assert outcome.code == 2 and outcome.out == ""
    assert name + ": not a report of this program" in outcome.err.splitlines()[-1]
    assert (tmp_path / name).read_text() == "<html>mine</html>"
    outcome = run_script(test_script, "--data-dir", sample_dir, "--model-dir", tiny_model.folder,
                         "--report", tmp_path / name)
    assert outcome.code == 2 and outcome.out == ""
    assert name + ": not a folder" in outcome.err.splitlines()[-1]


def test_metrics_replace_no_other_file(run_script, sample_dir, tiny_model, tmp_path):
    arguments = ("--data-dir", sample_dir, "--model-dir", tiny_model.folder, "--json")
    photograph = tmp_path / "photo.png"
    shutil.copy(load_split(sample_dir, "test").faces[0], str(photograph))
    before = photograph.read_bytes()
    outcome = run_script(test_script, *arguments, photograph)
    assert outcome.code == 2 and "photo.png: not a file of metrics" in outcome.err.splitlines()[-1]
    assert photograph.read_bytes() == before
    boxes = tmp_path / "boxes.json"  # COCO's format, indented
    boxes.write_text(json.dumps({"images": [], "annotations": []}, indent=2))
    outcome = run_script(test_script, *arguments, boxes)
    assert outcome.code == 2 and "boxes.json: not a file of metrics" in outcome.err
    for _ in range(2):
        assert run_script(test_script, *arguments, tmp_path / "metrics.json").code == 0


def test_pictures_that_vanish_before_the_report(tmp_path, capsys):
    names = ["gone/{}.png".format(number) for number in range(4)]
    scores = Scores(names, np.array([0, 0, 1, 1]), np.array([0.8, 0.2, 0.8, 0.3]), 0)
    report.write_report(str(tmp_path), "model", judged(scores))
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert page.open == [] and " ".join(page.text).count("no longer readable") == 4
    assert capsys.readouterr().err.count("no such file") == 4


def test_long_and_wide_names_of_categories_fit(recwarn):
    """The labels stand left of their axis, also in the fonts of a browser."""
    scores = Scores([""] * 4, np.array([0, 0, 1, 1]), np.array([0.9, 0.2, 0.8, 0.1]), 0)
    measured = metrics.measure_scores(scores)
    measured["false_positives_by_category"] = [
        {"category": name, "false_positives": 3, "images": 1000, "rate": 0.003}
        for name in ("\u6f22" * 40, "x" * 200, "ab", "\u6f22\u5b57$a$")]
    (figure,) = [chart for name, _, chart in charts.draw_charts(scores, measured)
                 if name == "categories"]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(set(labels)) == 4
    left = figure.subplotpars.left * charts.WIDTH * 72
    for label in labels:
        assert charts.display_width(label.split(" (")[0]) <= charts.LONGEST_NAME + 2
        assert charts.display_width(label) * 0.5 * charts.LABEL_SIZE < left
    charts.to_svg(figure, "name", "description")
    assert not [each for each in recwarn if "Glyph" in str(each.message)]
    assert charts.shorten("abcdefghij", 5) == "ab\u2026ij" and charts.shorten("abc", 5) == "abc"


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")
def test_page_in_a_browser(made, tmp_path):
    """Headless Chromium, without a network, builds the page and paints it in both themes."""
    address = "file://" + os.path.join(made[0], "index.html")
    base = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--user-data-dir=" + str(tmp_path / "profile"),
            "--window-size=1200,3000"]
    dom = subprocess.run(base + ["--dump-dom", address], stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL, timeout=120, check=True).stdout.decode()
    assert dom.count("<svg") == 7 and dom.count("<figure") > 20
    means = []
    for theme in ("1", "0"):  # Chromium's numbers for light and dark
        picture = str(tmp_path / (theme + ".png"))
        subprocess.run(base + ["--blink-settings=preferredColorScheme=" + theme,
                               "--screenshot=" + picture, address],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120,
                       check=True)
        painted = np.asarray(Image.open(picture).convert("L")).astype(float)
        assert painted.std() > 10, "not an empty page"
        means.append(painted.mean())
    assert means[0] > 180 > 100 > means[1]

"""The evaluation that test.py and inference.py share, and its report.

``--report DIR`` writes ``report.json`` for programs and ``index.html`` for people: one file with
its charts and pictures inside, which opens from the disk without a network, on light and dark
screens. It shows the figures, the curves behind them and the pictures that were taken for what
they are not, the most confident mistakes first, each beside its map of where a face was seen.
"""

import base64
import html
import io
import os
import re

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image
from sklearn import metrics as sklearn_metrics

from evaluation import heatmaps
from evaluation.figures import (
    TABLE,
    figures_of,
    format_figure,
    format_table,
    score_split,
    threshold_at,
)
from evaluation.robustness import format_robustness, measure_disturbed
from pictures.classes import CLASS_NAMES, FACE, NON_FACE
from pictures.decode import read_image
from pictures.sheets import BLUE, CHART_STYLE, GREEN, INK, RED, hexadecimal, shrink
from runtime import distributed
from runtime.session import PRECISIONS
from utils import number_type, printable, progress, write_atomically, write_json

MOST_MISTAKES = 24  # pictures shown of each kind of mistake
CLOSE_CALLS = 12
TILE = 176  # height and width of a picture in the report, in pixels

# Colours of the SVG charts -> what stands in the page for them, so that they follow its theme.
THEME = {hexadecimal(INK): "currentColor", hexadecimal(BLUE): "var(--face)",
         hexadecimal(RED): "var(--non-face)", hexadecimal(GREEN): "var(--good)"}


def add_evaluation_arguments(parser):
    """The options that every script which measures over the test lists has."""
    parser.add_argument("--threshold", type=number_type(float, 0, 1), default=0.5,
                        help="probability from which on a picture is called a face")
    parser.add_argument("--at-fpr", type=number_type(float, 0, 1), metavar="RATE",
                        help="also find the threshold whose false-positive rate is at most this")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32",
                        help="what convolutions compute in")
    parser.add_argument("--robustness", action="store_true",
                        help="also measure with every test picture grey, blurred, noisy, shrunk, "
                             "moved, .. (takes 12 times as long)")
    parser.add_argument("--report", metavar="DIR",
                        help="write report.json and a self-contained index.html there")


def evaluate_and_report(classifier, split, args, model, weights, metrics_path):
    """Measure over a split's lists, print the tables, and write what the options ask for.

    Several ranks share the classifying; the rest is rank 0's.

    Parameters
    ----------
    classifier : frozen.Classifier
    split : dataset.Split
    args : argparse.Namespace
        With the options of :func:`add_evaluation_arguments` and ``batch_size``.
    model : str
        The model's name, for people.
    weights : callable
        Returns the model's weights; called for the report's maps.
    metrics_path : str
        The JSON file that gets the figures.
    """
    scores = score_split(classifier, split, args.batch_size)
    if distributed.rank():
        return
    figures = figures_of(scores, args.threshold)
    if args.at_fpr is not None:
        figures["at_false_positive_rate"] = threshold_at(
            scores.labels, scores.face_probabilities, args.at_fpr)
    print("{}, {} faces and {} non-faces".format(model, *map(len, split)))
    print(format_table(figures), flush=True)
    if args.robustness:
        figures["robustness"] = measure_disturbed(
            classifier, scores, args.batch_size, args.threshold)
        print("\n" + format_robustness(figures["robustness"]), flush=True)
    write_json(metrics_path, figures)
    if args.report:
        mapper = heatmaps.FaceMapper(weights(), classifier.image_size)
        write_report(args.report, model, scores, figures, mapper)
        print("wrote {}".format(os.path.join(args.report, "index.html")))


def write_report(folder, model, scores, figures, mapper=None):
    """Write ``report.json`` and ``index.html``.

    Parameters
    ----------
    folder : str
        Made if it is not there.
    model : str
        The model's name.
    scores : evaluation.Scores
    figures : dict
        As :func:`evaluation.figures.figures_of` gives them; with ``at_false_positive_rate`` and
        ``robustness`` where they were asked for.
    mapper : heatmaps.FaceMapper, optional
        Draws where a face was seen beside each picture.
    """
    mistakes, close_calls = find_mistakes(scores, figures["threshold"])
    write_json(os.path.join(folder, "report.json"), {
        "model": model, "figures": figures,
        "mistakes": [_describe(scores, index) for rows in mistakes for index in rows]})
    page = _page(model, scores, figures, mistakes, close_calls, mapper)
    with write_atomically(os.path.join(folder, "index.html"), "w", encoding="utf-8") as stream:
        stream.write(page)


def find_mistakes(scores, threshold):
    """The pictures that were taken for what they are not, and those that nearly were.

    Returns
    -------
    mistakes : (list of int, list of int)
        Positions in ``scores`` of the false positives and of the missed faces, the most confident
        first.
    close_calls : list of int
        The right answers whose probability is nearest to the threshold.
    """
    probabilities = scores.face_probabilities
    called_face = probabilities >= threshold
    is_face = scores.labels == FACE
    order = np.argsort(probabilities, kind="stable")
    false_positives = [int(i) for i in order[::-1] if called_face[i] and not is_face[i]]
    missed = [int(i) for i in order if is_face[i] and not called_face[i]]
    nearest = np.argsort(np.abs(probabilities - threshold), kind="stable")
    right = [int(i) for i in nearest if called_face[i] == is_face[i]]
    return (false_positives, missed), right[:CLOSE_CALLS]


def _describe(scores, index):
    return {"file": scores.paths[index], "class": CLASS_NAMES[scores.labels[index]],
            "face_probability": float(scores.face_probabilities[index])}


# Charts


def draw_charts(scores, figures):
    """The report's charts.

    Returns
    -------
    list of (str, str, matplotlib.figure.Figure)
        Each with a short name and a sentence on what it shows.
    """
    with matplotlib.rc_context(CHART_STYLE):
        charts = [
            ("confusion", "How many pictures of each class were taken for which.",
             _chart(_draw_confusion, figures)),
            ("histogram", "How many pictures got which probability. Two heaps far apart are a "
             "classifier that is sure of itself.", _chart(_draw_histogram, scores, figures)),
            ("roc", "Faces found against non-faces let through, over all thresholds.",
             _chart(_draw_roc, scores, figures)),
            ("precision-recall", "Of what is called a face, how much is one, against how many of "
             "the faces are found.", _chart(_draw_precision_recall, scores, figures)),
            ("reliability", "Whether a probability of 0.8 is right in 8 cases of 10: on the "
             "dashed line it is. Above each point stands its number of pictures; the fewer they "
             "are, the longer the bar of its 95 % interval.",
             _chart(_draw_reliability, figures)),
        ]
        wrong = [row for row in figures["false_positives_by_category"] if row["false_positives"]]
        if wrong:
            charts.append(("categories", "Which kinds of non-faces are taken for faces (the worst "
                           "15).", _chart(_draw_categories, wrong[:15])))
        if "robustness" in figures:
            charts.append(("robustness", "Mistakes when every test picture is disturbed alike.",
                           _chart(_draw_robustness, figures["robustness"], height=6.5)))
    return charts


def _chart(draw, *content, height=5):
    figure = Figure(figsize=(6.4, height))
    draw(figure.subplots(), *content)
    figure.tight_layout()
    return figure


def _draw_confusion(axis, figures):
    matrix = np.array(figures["confusion_matrix"])
    axis.grid(False)
    axis.set(title="Confusion matrix", xlim=(0, 2), ylim=(2, 0), xlabel="called",
             ylabel="actually", xticks=(0.5, 1.5), yticks=(0.5, 1.5))
    axis.set_xticklabels(["face", "non-face"])
    axis.set_yticklabels(["face", "non-face"], rotation=90, va="center")
    shares = matrix / matrix.sum(axis=1, keepdims=True)
    for (row, column), share in np.ndenumerate(shares):
        colour = hexadecimal(GREEN if row == column else RED)
        axis.add_patch(matplotlib.patches.Rectangle(
            (column + 0.02, row + 0.02), 0.96, 0.96, color=colour, alpha=0.15 + 0.35 * share))
        axis.text(column + 0.5, row + 0.45, "{:,}".format(matrix[row, column]), ha="center",
                  va="center", fontsize=26, fontweight="bold")
        axis.text(column + 0.5, row + 0.68, "{:.2f} %".format(100 * share), ha="center",
                  va="center")


def _draw_histogram(axis, scores, figures):
    edges = np.linspace(0, 1, 21)
    for label, colour, name in ((FACE, BLUE, "faces"), (NON_FACE, RED, "non-faces")):
        axis.hist(scores.face_probabilities[scores.labels == label], edges, label=name,
                  color=hexadecimal(colour), alpha=0.55)
    axis.axvline(figures["threshold"], color=hexadecimal(INK), linestyle="--", linewidth=1.5,
                 label="threshold {:.4g}".format(figures["threshold"]))
    axis.set(title="Scores", xlabel="probability of a face", ylabel="pictures (log scale)",
             yscale="log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: "{:g}".format(value)))
    axis.legend(loc="upper center", bbox_to_anchor=(0.45, -0.16), ncol=3, fontsize=12,
                columnspacing=1.2)


def _draw_roc(axis, scores, figures):
    rates, recalls, _ = sklearn_metrics.roc_curve(
        scores.labels == FACE, scores.face_probabilities)
    least = 0.5 / (scores.labels == NON_FACE).sum()  # stands for none, which a log scale lacks
    axis.plot(np.maximum(rates, least), recalls, color=hexadecimal(BLUE),
              drawstyle="steps-post")
    _mark_thresholds(axis, figures, lambda point: (
        max(point["false_positive_rate"], least), point["recall"]))
    area = format_figure("roc_auc", figures["roc_auc"])
    axis.set(title="ROC curve: area {}".format(area), xscale="log", xlim=(least, 1),
             ylim=_upper_part(recalls[rates <= least].max()), ylabel="share of the faces found",
             xlabel="share of the non-faces let through (log scale)")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "{:g}".format(value)))
    axis.legend(loc="lower right")


def _draw_precision_recall(axis, scores, figures):
    is_face = scores.labels == FACE
    precisions, recalls, _ = sklearn_metrics.precision_recall_curve(
        is_face, scores.face_probabilities)
    axis.plot(recalls, precisions, color=hexadecimal(BLUE), drawstyle="steps-post")
    faces, non_faces = is_face.sum(), (~is_face).sum()

    def place(point):
        found, let_through = point["recall"] * faces, point["false_positive_rate"] * non_faces
        return point["recall"], found / max(found + let_through, 1)

    _mark_thresholds(axis, figures, place)
    area = format_figure("average_precision", figures["average_precision"])
    axis.set(title="Precision and recall: average {}".format(area), xlim=(0, 1.02),
             ylim=_upper_part(precisions[0]), xlabel="share of the faces found (recall)",
             ylabel="share of faces among those found")
    axis.legend(loc="lower left")


def _upper_part(lowest):
    """The limits of an axis that shows a curve from ``lowest`` to 1: 0 to 1, or closer to 1."""
    low = 1 - 2 * (1 - lowest)
    low = 0 if low < 0.5 else min(low, 0.9)
    return low, 1 + 0.02 * (1 - low)


def _mark_thresholds(axis, figures, place):
    """Dots on a curve at the threshold in use and at the one for a chosen false-positive rate."""
    points = [(figures, INK)]
    if figures.get("at_false_positive_rate", {}).get("threshold") is not None:
        points.append((figures["at_false_positive_rate"], GREEN))
    for point, colour in points:
        axis.plot(*place(point), "o", markersize=10, color=hexadecimal(colour),
                  label="threshold {:.4g}".format(point["threshold"]), zorder=3, clip_on=False)


def _draw_reliability(axis, figures):
    calibration = figures["calibration"]
    axis.plot([0, 1], [0, 1], "--", color=hexadecimal(INK), linewidth=1.5)
    for row in calibration["bins"]:
        place, share = row["mean_probability"], row["face_share"]
        low, high = row["face_share_interval"]
        axis.plot([place, place], [low, high], color=hexadecimal(BLUE), alpha=0.5, clip_on=False)
        axis.plot(place, share, "o", color=hexadecimal(BLUE), markersize=8, clip_on=False)
        axis.text(place, 1.03, "{:,}".format(row["images"]), ha="center", fontsize=12)
    axis.set_title("Calibration: mean error {:.4f}".format(
        calibration["expected_calibration_error"]), pad=24)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of a face (mean of a bin)",
             ylabel="share of faces in the bin")


def _draw_categories(axis, rows):
    names = [printable("{category} ({false_positives} of {images})".format(**row)).replace(
        "$", r"\$") for row in rows]  # between dollars matplotlib would typeset formulas
    axis.barh(names, [row["rate"] for row in rows], color=hexadecimal(RED), alpha=0.8)
    axis.invert_yaxis()
    axis.tick_params("y", labelsize=11)
    axis.set_ylim(max(len(rows), 4) - 0.5, -0.5)
    axis.set(title="False positives by category", xlabel="share taken for faces")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda share, _: "{:g} %".format(100 * share)))


def _draw_robustness(axis, rows):
    names = [row["disturbance"] for row in rows]
    places = np.arange(len(rows))
    for name, colour, title, shift in (
            ("false_negative_rate", BLUE, "faces missed", -0.2),
            ("false_positive_rate", RED, "non-faces let through", 0.2)):
        axis.barh(places + shift, [row[name] for row in rows], 0.36, color=hexadecimal(colour),
                  label=title)
    axis.set_yticks(places)
    axis.set_yticklabels(names, fontsize=11)
    axis.invert_yaxis()
    axis.set(title="Disturbed pictures", xlabel="share of the class")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda share, _: "{:g} %".format(100 * share)))
    axis.legend(loc="upper center", bbox_to_anchor=(0.35, -0.14), ncol=2, fontsize=12)


def to_svg(figure, name, description):
    """A chart as an ``svg`` element for a page.

    Its colours follow the page's theme, its text stays text, and its identifiers begin with
    ``name`` so that several charts live in one document.
    """
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True,
                       metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    start = r'<svg \1 role="img" aria-label="{}">'.format(html.escape(description))
    svg = re.sub(r'<svg [^>]*(viewBox="[^"]*")[^>]*>', start, svg, count=1)
    svg = re.sub(r'(\bid="|href="#|url\(#)', r"\g<1>{}-".format(name), svg)
    svg = re.sub(r"font: ([^;\"]*?)'[^;\"]*", r"font: \1sans-serif", svg)
    for colour, theme in THEME.items():
        svg = svg.replace(colour, theme)
    return svg


# The page

STYLE = """
:root { color-scheme: light dark; --paper: #fafafa; --card: #ffffff; --ink: #202020; --faint: #666;
  --line: #d4d4d4; --face: #0072b2; --non-face: #d55e00; --good: #009e73; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --card: #202327; --ink: #e6e6e6;
  --faint: #a5a5a5; --line: #43474d; --face: #56b4e9; --non-face: #f0894a; --good: #3fc79a; } }
body { margin: 0 auto; max-width: 1180px; padding: 1rem 1.5rem 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; font-size: 1.25rem; }
p { color: var(--faint); } code { overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr));
  gap: 1rem; }
figure { margin: 0; padding: 0.75rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
figcaption { color: var(--faint); font-size: 0.85rem; overflow-wrap: anywhere; }
.charts svg { display: block; width: 100%; height: auto; color: var(--ink); }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
.tiles { display: grid; gap: 0.75rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 375px), 1fr)); }
.tiles figure { border-width: 3px; } .tiles img { width: calc(50% - 2px); height: auto;
  aspect-ratio: 1; object-fit: contain; } .tiles img + img { margin-left: 4px; }
.wrong { border-color: var(--non-face); } .right { border-color: var(--good); }
.tiles strong { color: var(--ink); }
.wide { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: 0.3rem 0.9rem 0.3rem 0; text-align: right; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
"""


def _page(model, scores, figures, mistakes, close_calls, mapper):
    false_positives, missed = mistakes
    charts = "\n".join(
        '<figure id="{}">{}<figcaption>{}</figcaption></figure>'.format(
            name, to_svg(figure, "chart-" + name, what), html.escape(what))
        for name, what, figure in draw_charts(scores, figures))
    faces = int((scores.labels == FACE).sum())
    parts = [
        "<h1>Face or non-face: {:.2f} % of {:,} pictures told right</h1>".format(
            100 * figures["accuracy"], figures["images"]),
        "<p>Model <code>{}</code>, {:,} faces and {:,} non-faces, threshold {:.6g}{}.</p>".format(
            html.escape(printable(model)), faces, figures["images"] - faces, figures["threshold"],
            ", {} unreadable files left out".format(figures["skipped"])
            if figures["skipped"] else ""),
        _figures_table(figures),
        '<h2>Curves</h2>\n<div class="charts">{}</div>'.format(charts),
        _robustness_table(figures.get("robustness")),
    ]
    sections = (
        ("Non-faces taken for faces", "false-positives", false_positives[:MOST_MISTAKES],
         len(false_positives)),
        ("Faces missed", "missed-faces", missed[:MOST_MISTAKES], len(missed)),
        ("Right, but only just", "close-calls", close_calls, len(close_calls)),
    )
    if mapper:
        parts.append("<p>Beside each picture below: in warm colours, where the network sees a "
                     "face; within the white lines, more likely a face than not.</p>")
    for title, name, rows, total in sections:
        shown = "" if len(rows) == total else ", the {} most confident".format(len(rows))
        parts.append('<h2>{}: {}{}</h2>\n<div class="tiles" id="{}">{}</div>'.format(
            title, total, shown, name, "\n".join(
                _tile(scores, index, name, mapper)
                for index in progress(rows, desc=title, leave=False))))
    return ('<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            "<title>Face or non-face: evaluation</title>\n<style>{}</style>\n</head>\n"
            "<body>\n{}\n</body>\n</html>\n").format(STYLE, "\n".join(parts))


def _table(header, rows):
    lines = ["<tr>{}</tr>".format("".join("<th>{}</th>".format(each) for each in header))]
    lines += ["<tr>{}</tr>".format("".join("<td>{}</td>".format(each) for each in row))
              for row in rows]
    return '<div class="wide"><table>{}</table></div>'.format("\n".join(lines))


def _figures_table(figures):
    rows = [(title, format_figure(name, figures[name])) for name, title in TABLE]
    rows.insert(1, ("accuracy, 95 % interval",
                    "{:.4f} to {:.4f}".format(*figures["accuracy_interval"])))
    rows.append(("expected calibration error",
                 "{:.4f}".format(figures["calibration"]["expected_calibration_error"])))
    if "at_false_positive_rate" in figures:
        point = figures["at_false_positive_rate"]
        rows += [("threshold for a false-positive rate of at most {:g}".format(point["target"]),
                  "none" if point["threshold"] is None else repr(point["threshold"])),
                 ("false-positive rate there", "{:.4f}".format(point["false_positive_rate"])),
                 ("recall there", "{:.4f}".format(point["recall"]))]
    return _table(("figure", "value"), rows)


def _robustness_table(rows):
    if not rows:
        return ""
    names = ("accuracy", "precision", "recall", "f1", "roc_auc", "average_precision",
             "false_positive_rate", "false_negative_rate")
    titles = dict(TABLE)
    body = [[html.escape(row["disturbance"])] + [format_figure(name, row[name]) for name in names]
            for row in rows]
    return "<h2>Robustness</h2>\n" + _table(
        ["test pictures"] + [titles[name] for name in names], body)


def _tile(scores, index, section, mapper):
    """A picture, its map, its probability and its file's name."""
    image = read_image(scores.paths[index])
    shown = [("the picture", image)]
    if mapper:
        shown.append(("its map", heatmaps.overlay(image, mapper(image))))
    name = html.escape(printable(scores.paths[index]))
    images = "".join('<img alt="{}" width="{}" height="{}" src="{}">'.format(
        what, TILE, TILE, _data_uri(shrink(each, TILE))) for what, each in shown)
    return ('<figure class="{}">{}<figcaption><strong>P(face) = {:.4f}</strong>, actually {}<br>{}'
            "</figcaption></figure>").format(
                "right" if section == "close-calls" else "wrong", images,
                scores.face_probabilities[index],
                "a face" if scores.labels[index] == FACE else "not a face", name)


def _data_uri(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")

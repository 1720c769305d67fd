"""Measure what an answer costs, from file to answer, beside the detectors that people would take.

    make bench                                              # costs alone, on sample images
    make bench BENCH="--wider-dir WIDER --non-faces DIR"    # recall too
    make bench BENCH="--megapixels 12 --images 20"          # the same images, as a phone has them
    make bench BENCH="--yunet face_detection_yunet_2023mar.onnx"    # one more peer
    python benchmarks/answers.py --help

Each program runs in a process of its own, and they take turns at every image, so that a change of
the machine's speed affects all. The peers run in an environment of their own (PEER_PYTHON, a Python
3.9 to 3.12, makes it), as they are meant to be used: longer side at most 640, small images never
enlarged, large ones decoded at a reduced scale. YuNet needs a file from you. What is missing is
skipped in one line. With images of both kinds the table adds the recall at 1 % false positives.
Writes answers.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import typing

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(1, os.path.dirname(HERE))

import numpy as np  # noqa: E402
from environments import python_of  # noqa: E402
from PIL import Image  # noqa: E402

from darknet_face.console import HelpFormatter, UserError, cli, number_type, progress, warn  # noqa: E402
from darknet_face.runtime.atomic_files import write_json  # noqa: E402

Answer = typing.Callable[[str], float]  # from a path to the score of the surest face
LONGEST = 640  # pixels, for the peers
LEAST_SCORE = 0.02  # the peers report boxes from here on, so that any threshold can be compared
WIDEST_FACE = 0.05  # an image counts as one with a face from this share of its width on
RATE = 0.01  # of false positives


def project(engine: str, precision: str, search: str) -> Answer:
    from darknet_face import load

    model = load("released", search, engine=engine, precision=precision)
    return lambda path: model(path).probability


def yunet(path: str) -> Answer:
    import cv2

    detector = cv2.FaceDetectorYN.create(path, "", (LONGEST, LONGEST), LEAST_SCORE)

    def answer(path: str) -> float:
        image = _read(path)
        detector.setInputSize(image.shape[1::-1])
        _, faces = detector.detect(image)
        return 0.0 if faces is None else float(faces[:, -1].max())

    return answer


def retinaface() -> Answer:
    from retinaface import detect_faces

    return lambda path: max((face.score for face in detect_faces(
        np.ascontiguousarray(_read(path)[..., ::-1]), score_threshold=LEAST_SCORE)), default=0.0)


def mediapipe() -> Answer:
    """BlazeFace for faces up to 5 m away, as photographs have them."""
    from mediapipe import solutions

    detector = solutions.face_detection.FaceDetection(LEAST_SCORE, model_selection=1)
    return lambda path: max((each.score[0] for each in detector.process(
        np.ascontiguousarray(_read(path)[..., ::-1])).detections or ()), default=0.0)


def _read(path: str) -> np.ndarray:
    """An image as OpenCV reads it, BGR, its longer side at most LONGEST."""
    import cv2

    longest = max(Image.open(path).size)
    flags = [flag for reduction, flag in (
        (8, cv2.IMREAD_REDUCED_COLOR_8), (4, cv2.IMREAD_REDUCED_COLOR_4),
        (2, cv2.IMREAD_REDUCED_COLOR_2), (1, cv2.IMREAD_COLOR)) if longest >= reduction * LONGEST]
    image = cv2.imread(path, flags[0] if flags else cv2.IMREAD_COLOR)
    scale = min(1.0, LONGEST / max(image.shape[:2]))
    return image if scale == 1 else cv2.resize(image, None, None, scale, scale, cv2.INTER_AREA)


# By the value of --peers: the function and its title.
PEERS = {"retinaface": "RetinaFace-MobileNet", "mediapipe": "MediaPipe"}


def contenders(args: argparse.Namespace) -> dict[str, list[str]]:
    """What is there to be measured: a title, and the command that starts it."""
    found = {}
    for engine in args.engines:
        for precision in ("float32", "int8") if engine == "onnxruntime" else ("float32",):
            for search in args.searches:
                title = "this project, {}, {}, search {}".format(engine, precision, search)
                found[title] = [sys.executable, "project", engine, precision, search]
    if args.yunet:
        found["YuNet"] = [sys.executable, "yunet", args.yunet]
    else:
        warn("YuNet: skipped; name its file by --yunet")
    try:
        found.update((PEERS[name], [python_of("peers"), name]) for name in args.peers)
    except subprocess.CalledProcessError:
        warn("{}: skipped; pip's message is above: name a Python 3.9 to 3.12 by the variable "
             "PEER_PYTHON".format(", ".join(PEERS[name] for name in args.peers)))
    return found


def serve(function: str, *arguments: str) -> None:
    """Answer the paths on standard input, one a line, by JSON: score, wall and CPU seconds."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no reply
    answer = globals()[function](*arguments)
    for line in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        score = answer(line.rstrip("\n"))
        replies.write(json.dumps({
            "score": score, "wall": time.perf_counter() - start,
            "cpu": time.process_time() - cpu, "cpu_from_start": time.process_time()}) + "\n")
        replies.flush()


class Program:
    """A contender at work in a process of its own."""

    def __init__(self, title: str, arguments: list[str], threads: int) -> None:
        self.title = title
        self.start = time.perf_counter()
        self.process = subprocess.Popen(
            [arguments[0], os.path.abspath(__file__), "--serve", *arguments[1:]], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=dict(os.environ, OMP_NUM_THREADS=str(threads)))

    def answer(self, path: str) -> dict[str, float]:
        self.process.stdin.write(path + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise UserError("{}: ended at {}; what it said is above".format(self.title, path),
                            exit_code=1)
        return json.loads(line)

    def first_answer(self, path: str) -> dict[str, float]:
        """Wall and CPU seconds from the start of the process to its first answer."""
        reply = self.answer(path)
        return {"wall": time.perf_counter() - self.start, "cpu": reply["cpu_from_start"]}

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(programs: dict[str, list[str]], paths: list[str], rounds: int, threads: int
            ) -> dict[str, dict[str, typing.Any]]:
    """Start the programs one after the other, then let them take turns at every image."""
    first, running = {}, []
    try:
        for title, arguments in programs.items():
            program = Program(title, arguments, threads)
            running.append(program)
            first[title] = program.first_answer(paths[0])
        replies: dict[str, list[dict[str, float]]] = {title: [] for title in programs}
        for path in progress(paths * rounds, desc="measuring", unit="image"):
            for program in running:
                replies[program.title].append(program.answer(path))
    finally:
        for program in running:
            program.stop()
    return {title: dict(
        first=first[title], scores=[each["score"] for each in found[:len(paths)]],
        **{name: statistics.median(each[name] for each in found) for name in ("wall", "cpu")})
        for title, found in replies.items()}


def recall_at(scores: typing.Sequence[float], labels: typing.Sequence[bool], rate: float) -> float:
    """The share of images with a face that score above all but ``rate`` of those without."""
    values, has_face = np.array(scores), np.array(labels)
    others = np.sort(values[~has_face])[::-1]
    return float((values[has_face] > others[int(rate * len(others))]).mean())


def choose_images(args: argparse.Namespace) -> tuple[list[str], list[bool] | None]:
    """The images to answer, and whether each shows a face, where that is known."""
    from darknet_face.evaluation.photographs import photographs_by_width
    from darknet_face.images.find_images import find_images
    from darknet_face.images.samples import sample_images

    if not (args.wider_dir and args.non_faces):
        return sample_images()[:args.images], None
    wide = [path for path, width in photographs_by_width(args.wider_dir, "val")
            if width >= WIDEST_FACE * Image.open(path).width]
    halves = [each[::max(1, len(each) * 2 // args.images)][:args.images // 2]
              for each in (wide, sorted(find_images(args.non_faces)))]
    return halves[0] + halves[1], [True] * len(halves[0]) + [False] * len(halves[1])


def as_a_phone_has_them(paths: list[str], megapixels: float, folder: str) -> list[str]:
    """Write the images, enlarged to so many megapixels, as JPEGs; return the paths."""
    large = []
    for number, path in enumerate(progress(paths, desc="enlarging", unit="image")):
        image = Image.open(path).convert("RGB")
        factor = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
        large.append(os.path.join(folder, "{:05d}.jpg".format(number)))
        image.resize((round(image.width * factor), round(image.height * factor)),
                     Image.BICUBIC).save(large[-1], quality=90)
    return large


def format_table(results: dict[str, dict[str, typing.Any]]) -> str:
    lines = ["{:<46} {:>9} {:>9} {:>12} {:>11} {:>8}".format(
        "milliseconds an image (median)", "wall", "CPU", "first, wall", "first, CPU", "recall")]
    for title, row in results.items():
        lines.append("{:<46} {:9.0f} {:9.0f} {:12.0f} {:11.0f} {:>8}".format(
            title, *(1000 * value for value in (
                row["wall"], row["cpu"], row["first"]["wall"], row["first"]["cpu"])),
            "{:.1%}".format(row["recall"]) if "recall" in row else ""))
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure what an answer costs, from file to answer.",
        formatter_class=HelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=("onnxruntime", "tensorflow"),
                        default=["onnxruntime"], help="of this project")
    parser.add_argument("--searches", nargs="+", choices=("off", "1", "2", "4", "detector"),
                        default=["off", "4", "detector"],
                        help="of this project; see inference.py --search")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS),
                        help="that bring their weights")
    parser.add_argument("--yunet", metavar="FILE", help="YuNet's .onnx, from OpenCV's model zoo")
    parser.add_argument("--wider-dir", metavar="DIR", help="WIDER FACE: images with boxes")
    parser.add_argument("--non-faces", metavar="DIR", help="a folder of images without faces")
    parser.add_argument("--megapixels", type=number_type(float, 0.1, 100), metavar="M",
                        help="enlarge the images to this size first (default: as they are)")
    parser.add_argument("--images", type=number_type(int, 2), default=200, help="how many")
    parser.add_argument("--rounds", type=number_type(int, 1), default=3, help="over all images")
    parser.add_argument("--threads", type=number_type(int, 1), default=os.cpu_count(),
                        help="for OpenMP, of every program")
    parser.add_argument("--out", default=os.path.join(HERE, "out"), help="folder for the results")
    return parser


@cli
def main() -> None:
    args = _parser().parse_args()
    paths, labels = choose_images(args)
    with tempfile.TemporaryDirectory() as folder:
        results = measure(
            contenders(args),
            as_a_phone_has_them(paths, args.megapixels, folder) if args.megapixels else paths,
            args.rounds, args.threads)
    for row in results.values():
        if labels:
            row["recall"] = recall_at(row["scores"], labels, RATE)
    print("{} images\n{}".format(len(paths), format_table(results)))
    path = os.path.join(args.out, "answers.json")
    write_json(path, {"images": paths, "labels": labels, "results": results})
    print("wrote " + path)


if __name__ == "__main__":
    serve(*sys.argv[2:]) if sys.argv[1:2] == ["--serve"] else main()

"""Resuming a training: where it continues, and which settings it shares with its checkpoints."""

from __future__ import annotations

import collections
import hashlib
import os
import typing

from darknet_face.console import UserError
from darknet_face.images.file_lists import relative_to_data
from darknet_face.runtime import distributed
from darknet_face.runtime.atomic_files import write_json
from darknet_face.runtime.safe_files import is_json_with, read_json
from darknet_face.runtime.session import tf
from darknet_face.training.history import HISTORY, read_history
from darknet_face.training.initial_weights import assign_initial_weights
from darknet_face.training.mixture import describe
from darknet_face.training.schedule import START, EpochSchedule, Segment
from darknet_face.training.settings import RUN_SETTINGS, Settings
from darknet_face.weights.checkpoints import newest_checkpoint, other_files, restore_checkpoint

if typing.TYPE_CHECKING:
    from darknet_face.images.file_lists import Split

RECORD = "settings.json"
# Values of the settings that records of earlier versions lack.
LATER = {"epoch_images": 0, "width": 1.0, "teacher": None,
         "teacher_weight": Settings().teacher_weight, "temperature": Settings().temperature}
AGAIN = "begin again with --restart"

# checkpoint : str or None, the prefix of the checkpoint to resume from.
# schedule : EpochSchedule.
# record : dict, what settings.json beside the checkpoints holds.
Plan = collections.namedtuple("Plan", "checkpoint schedule record")


def checkpoint_folder(settings: Settings) -> typing.Any:
    return os.path.join(settings.model_dir, "checkpoints")


def plan_run(settings: Settings, splits: dict[str, Split], teacher: str | None = None) -> Plan:
    """Look for a checkpoint to resume from and check that this run fits it. Rank 0 looks.

    Parameters
    ----------
    settings
    splits
        With ``train`` and ``val``.
    teacher
        The digest of the teacher's weights.

    Raises
    ------
    UserError
        When the checkpoint was made with other settings or images.
    """
    return distributed.from_first(
        _plan(settings, splits, teacher) if distributed.rank() == 0 else None)


def _plan(settings, splits, teacher):
    folder = checkpoint_folder(settings)
    HISTORY.check(os.path.join(settings.log_dir, "history.csv"))
    if is_json_with(os.path.join(settings.model_dir, RECORD), ["anchors"]):
        raise UserError("{}: a detector is trained there; choose another --model-dir".format(
            settings.model_dir))
    checkpoint = None if settings.restart else newest_checkpoint(folder)
    length = settings.epoch_images or max(map(len, splits["train"]))
    half = settings.batch_size // 2
    record = {name: getattr(settings, name) for name in RUN_SETTINGS}
    record.update(sources=describe(settings.sources), teacher=teacher)
    record["steps_per_epoch"] = EpochSchedule(length, half).steps_per_epoch
    record["file_lists"] = _digest_of_lists(splits, settings.data_dir)
    step, segments = 0, [START]
    if checkpoint:
        step = _step_in_name(checkpoint)
        path = os.path.join(folder, RECORD)
        stored = dict(LATER, **read_json(path, AGAIN))
        _check_record(stored, record, path)
        segments = _stored_segments(stored, path)
    schedule = EpochSchedule(length, half, segments).resumed(step, distributed.size())
    return Plan(checkpoint, schedule, dict(record, segments=schedule.segments))


def _step_in_name(checkpoint):
    number = checkpoint.rpartition("-")[2]
    if not number.isdecimal():
        raise UserError("{}: not a name that train.py gives to a checkpoint; remove it, or {}"
                        .format(checkpoint, AGAIN))
    return int(number)


def _check_record(stored, record, path):
    """Refuse to resume with other settings than the checkpoints were made with."""
    for name in list(record) + ["segments"]:
        if name not in stored:
            raise UserError("{}: has no {}; it is damaged or was written by an older train.py: {}"
                            .format(path, name.replace("_", "-"), AGAIN))
    for name, value in record.items():
        if stored[name] != value:
            raise UserError("{}: made with {} {}, not {}; use the same, or {}".format(
                os.path.dirname(path), name.replace("_", "-"), str(stored[name])[:40], value,
                AGAIN))


def _stored_segments(stored, path):
    """The segments in a record, each number checked."""
    try:
        segments = [Segment(*each) for each in stored["segments"]]
        whole = all(type(number) is int and 0 <= number < 1 << 53
                    for segment in segments for number in segment)
        steps = [segment.step for segment in segments]
        whole = (whole and steps[0] == 0 and sorted(set(steps)) == steps
                 and all(segment.ranks for segment in segments))
    except (KeyError, TypeError, IndexError):
        whole = False
    if not whole:
        raise UserError("{}: its segments are damaged; {}".format(path, AGAIN))
    return segments


def _digest_of_lists(splits, data_dir):
    """A short digest of the training and validation images and their order."""
    names = [relative_to_data(path, data_dir)
             for name in ("train", "val") for path in splits[name].paths]
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def start_or_resume(session: typing.Any, saver: typing.Any, settings: Settings, plan: Plan
                   ) -> list[dict[str, typing.Any]]:
    """Set the variables by the checkpoint, or start a training in its folder.

    Parameters
    ----------
    session
        With the training graph, its variables initialised.
    saver
    settings
    plan

    Returns
    -------
    list of dict
        The history up to the checkpoint; the file ``history.csv`` is cut there.

    Raises
    ------
    UserError
        When the checkpoint or the weights of --init-from do not load; nothing is changed then.
    """
    history_path = os.path.join(settings.log_dir, "history.csv")
    step = 0
    if plan.checkpoint:
        step = _restore(session, saver, plan.checkpoint)
        rows = [row for row in read_history(history_path) if row["step"] <= step]
        print(_describe(settings, plan, step, rows), flush=True)
    else:
        assign_initial_weights(
            session, settings.init_from, settings.freeze_until, settings.width)
        if settings.restart:  # now that nothing is left that could refuse the command line
            remove_old_run(settings)
        rows = []
    write_json(os.path.join(checkpoint_folder(settings), RECORD), plan.record)
    HISTORY.write(history_path, rows)
    return rows


def _restore(session, saver, checkpoint):
    """Restore a checkpoint and return its step."""
    restore_checkpoint(
        saver, session, checkpoint, "remove its files to use the one before, or " + AGAIN)
    step = int(session.run(tf.train.get_global_step(session.graph)))
    if step != _step_in_name(checkpoint):
        raise UserError("{}: holds step {}, not that of its name; rename or remove its files"
                        .format(checkpoint, step))
    return step


def _describe(settings, plan, step, rows):
    """What is resumed, for the person at the keyboard."""
    epoch, done = plan.schedule.place(step)
    if epoch >= settings.epochs and rows and rows[-1]["epoch"] >= epoch:
        return ("finished already: {} epochs are trained (step {}); train on with more --epochs, "
                "or {}".format(epoch, step, AGAIN))
    message = "resuming at step {} (epoch {}) from {}".format(
        step, min(epoch + 1, settings.epochs), plan.checkpoint)
    if step and plan.schedule.segment.step == step:
        message += "; this epoch begins again, since there are {} ranks now".format(
            plan.schedule.ranks)
    if settings.init_from:
        message += "; --init-from is ignored"
    return message


def remove_old_run(settings: Settings) -> None:
    """Remove the files of an earlier run, by the names that train.py gives, and nothing else."""
    paths = [os.path.join(settings.log_dir, name)
             for name in ("history.csv", "history.png", "training_summary.png")]
    for folder, names in (("checkpoints", (RECORD,)), ("best", ("best.json",))):
        folder = os.path.join(settings.model_dir, folder)
        paths += other_files(folder, ())
        paths += [os.path.join(folder, name) for name in names + ("checkpoint",)]
    paths = [path for path in paths if os.path.exists(path)]
    start = os.path.realpath(settings.init_from) if settings.init_from else None
    for path in map(os.path.realpath, paths):
        if start in (path, os.path.splitext(path)[0], os.path.dirname(path)):
            raise UserError("--init-from {}: --restart removes it; copy it to another folder "
                            "first".format(settings.init_from))
    for path in paths:
        os.remove(path)

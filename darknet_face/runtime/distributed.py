"""Several processes, on one machine or many, that work together: Horovod's ranks, started by MPI.

    make distributed
    mpirun -np 2 python train.py

Every script whose ``main`` is decorated by :func:`job` may be started by mpirun. A script that is
started alone never imports Horovod: it is rank 0 of 1, and every function here works for one rank.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import signal
import socket
import sys
import time
import typing

from darknet_face.console import UserError, print_error

# Environment variables in which launchers say how many processes they started: Open MPI's mpirun,
# that of other MPIs, horovodrun, Slurm's srun.
SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "HOROVOD_SIZE", "SLURM_STEP_NUM_TASKS")
PATIENCE = 5  # seconds that other ranks wait for rank 0 to report a failure that all share

_horovod: typing.Any = None  # horovod.tensorflow, once it runs
_exchange: _Exchange | None = None


def launched_size() -> int:
    """How many processes the launcher started together with this one; 1 without a launcher."""
    sizes = [os.environ.get(name, "") for name in SIZE_VARIABLES]
    return max([1] + [int(size) for size in sizes if size.isdecimal()])


def size() -> int:
    """The number of ranks."""
    return _horovod.size() if _horovod else 1


def rank() -> int:
    """This process's number, from 0. Rank 0 alone writes and prints."""
    return _horovod.rank() if _horovod else 0


def job(main: typing.Callable[[], typing.Any]) -> typing.Callable[[], typing.Any]:
    """Decorate a script's ``main``, inside ``cli``, to run as one of several ranks if started so.

    A rank that fails exits at once with its exit code; the launcher then ends the others. Ranks
    other than 0 print errors and warnings only.
    """

    @functools.wraps(main)
    def wrapper():
        if launched_size() == 1:
            return main()
        _start()
        if rank():
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (to the end of the process)
        try:
            return main()
        except BaseException as error:
            if isinstance(error, SystemExit) and not error.code:
                raise
            _leave(error)

    return wrapper


def _start():
    global _horovod
    # Without this Open MPI waits in a busy loop, on the cores that the ranks compute with.
    os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    try:
        import horovod.tensorflow as horovod
    except ImportError as error:
        raise UserError("started as one of {} processes, but Horovod does not load ({}): run make "
                        "distributed, or start one process".format(launched_size(), error))
    horovod.init()
    if horovod.size() == 1:
        raise UserError("the launcher started {} processes, but each one is alone: start them by "
                        "the mpirun that Horovod was built with, or by srun --mpi=pmix".format(
                            launched_size()))
    _horovod = horovod


def _leave(error):
    """End this process now, with one line that says why and where."""
    code: typing.Any = 1
    line: typing.Any = "{}: {}".format(type(error).__name__, error)
    if isinstance(error, SystemExit):
        code, line = error.code, None  # the cause is printed already
    elif isinstance(error, KeyboardInterrupt):
        code, line = 130, "interrupted"
    elif isinstance(error, UserError):
        code, line = error.exit_code, error
    elif isinstance(error, OSError):
        code, line = 2, "{}; check the path, its permissions and the free disk space".format(error)
    elif "Horovod" in str(error):  # a long message; the rank that failed prints the cause
        line = "another rank has ended"
    if rank():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the launcher's, once rank 0 has exited
        time.sleep(PATIENCE)
    if line:
        print_error("rank {} on {}: {}".format(rank(), socket.gethostname(), line))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def average(tensor: typing.Any, compress: bool = False) -> typing.Any:
    """The mean of a float tensor over the ranks, a graph operation that all must run together.

    ``compress`` sends float16; the result has the tensor's type.
    """
    if not _horovod:
        return tensor
    return _horovod.allreduce(tensor, op=_horovod.Average, compression=_compression(compress))


def _compression(compress):
    return _horovod.Compression.fp16 if compress else _horovod.Compression.none


class JointStep:
    """A training step by all ranks together, in the default graph; with one rank a plain step.

    Parameters
    ----------
    loss, accuracy : tf.Tensor
        Means over this rank's batch, scalars.

    Attributes
    ----------
    weight : tf.Tensor
        To be fed: how much this rank's batch counts, 1 by default. See
        :class:`darknet_face.training.schedule.Share`.
    stop : tf.Tensor
        To be fed: whether this rank was asked to stop, False by default.
    objective : tf.Tensor
        What this rank minimises. Its gradients are averaged over the ranks.
    loss, accuracy : tf.Tensor
        Means over the images of all ranks.
    stopping : tf.Tensor
        Whether any rank was asked to stop: the same on all.
    """

    def __init__(self, loss: typing.Any, accuracy: typing.Any) -> None:
        from darknet_face.runtime.session import tf

        self.weight = tf.placeholder_with_default(1.0, [])
        self.stop = tf.placeholder_with_default(False, [])
        self.objective = self.weight * loss
        self.loss, self.accuracy, stopping = tf.unstack(average(tf.stack(
            [self.objective, self.weight * accuracy, tf.cast(self.stop, tf.float32)])))
        self.stopping = stopping > 0

    def average_after(self, updates: list, variables: list) -> list:
        """Operations that run ``updates``, then give ``variables`` their mean over all images.

        They are for the moving averages of batch norm, which each rank updates by its own batches.
        """
        from darknet_face.runtime.session import tf

        if not _horovod:
            return updates
        with tf.control_dependencies(updates):
            return [each.assign(average(self.weight * each.read_value())) for each in variables]


def averaging(optimizer: typing.Any, compress: bool = False) -> typing.Any:
    """An optimiser that averages its gradients over the ranks before it applies them.

    Parameters
    ----------
    optimizer : tf.train.Optimizer
    compress
        Send the gradients as float16.
    """
    if not _horovod:
        return optimizer
    return _horovod.DistributedOptimizer(optimizer, compression=_compression(compress))


def share_variables(session: typing.Any) -> None:
    """Set the variables of the session's graph, on every rank, to the values on rank 0."""
    if _horovod:
        with session.graph.as_default():
            session.run(_horovod.broadcast_global_variables(0))


def gather(value: typing.Any) -> list:
    """The values of all ranks (anything that pickles), on every rank, in the order of the ranks."""
    if not _horovod:
        return [value]
    global _exchange
    _exchange = _exchange or _Exchange()
    return _exchange(value)


def from_first(value: typing.Any) -> typing.Any:
    """The value of rank 0, on every rank."""
    return gather(value if rank() == 0 else None)[0]


def wait_for_all() -> None:
    """Return once every rank is here."""
    gather(None)


def check_same(value: typing.Any, what: str) -> None:
    """Make sure that all ranks have the same value.

    Parameters
    ----------
    value
        With the same ``repr`` on every rank.
    what
        What it is, in the plural, for the error.

    Raises
    ------
    UserError
        On every rank, naming the first that differs.
    """
    digest = hashlib.sha256(repr(value).encode()).hexdigest()
    hosts, digests = zip(*gather((socket.gethostname(), digest)))
    for number, (host, other) in enumerate(zip(hosts, digests)):
        if other != digests[0]:
            raise UserError("{}: rank {} on {} has others; copy them again".format(
                what, number, host))


class _Exchange:
    """A graph and session that pass bytes between the ranks."""

    def __init__(self):
        from darknet_face.runtime.session import new_session, tf

        with tf.Graph().as_default():
            self.content = tf.placeholder(tf.uint8, [None])
            self.length = tf.placeholder(tf.int64, [1])
            self.gathered = (_horovod.allgather(self.content, name="exchange_content"),
                             _horovod.allgather(self.length, name="exchange_length"))
            self.session = new_session(threads=1)

    def __call__(self, value):
        import numpy as np

        content = np.frombuffer(pickle.dumps(value, protocol=4), np.uint8)
        joined, lengths = self.session.run(
            self.gathered, {self.content: content, self.length: [len(content)]})
        parts = np.split(joined, np.cumsum(lengths)[:-1])
        return [pickle.loads(part.tobytes()) for part in parts]

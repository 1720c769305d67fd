"""Time how long the ranks take to average gradients, without the training around it.

    make distributed
    mpirun -np 2 python benchmarks/averaging.py
"""

import argparse
import os
import sys
import time

import numpy as np

sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from darknet_face.console import HelpFormatter, UserError, cli, number_type  # noqa: E402
from darknet_face.runtime import distributed  # noqa: E402
from darknet_face.runtime.session import new_session, tf  # noqa: E402


def measure(megabytes, rounds, compress=False):
    """Time the averaging of float32 tensors: the median over rounds, in seconds.

    Parameters
    ----------
    megabytes : float
        In tensors of 4 MB.
    rounds : int
    compress : bool
        Send float16.

    Returns
    -------
    float
        The session's overhead included.
    """
    with tf.Graph().as_default():
        # Variables, because TensorFlow averages a constant only once; and each is fetched, because
        # it drops operations that only a tf.group() depends on.
        parts = [tf.Variable(tf.ones([int(min(4, megabytes - start) * 250000)]))
                 for start in np.arange(0, megabytes, 4)]
        averages = [distributed.average(part, compress).op for part in parts]
        with new_session(threads=1) as session:
            session.run(tf.global_variables_initializer())
            seconds = []
            for _ in range(rounds + 3):  # the first rounds set up connections
                distributed.wait_for_all()
                started = time.perf_counter()
                session.run(averages)
                seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[3:]))


@cli
@distributed.job
def main():
    parser = argparse.ArgumentParser(
        description="Time how long ranks take to average gradients.",
        formatter_class=HelpFormatter)
    parser.add_argument("--megabytes", type=number_type(float, 0.1), default=79.3,
                        help="of float32; the default is this network's gradients")
    parser.add_argument("--rounds", type=number_type(int, 1), default=20, help="to take")
    parser.add_argument("--fp16-compression", action="store_true", help="send float16")
    args = parser.parse_args()
    if distributed.size() == 1:
        raise UserError("one process has nothing to average: start this by mpirun -np 2")
    seconds = measure(args.megabytes, args.rounds, args.fp16_compression)
    print("{} ranks average {:g} MB in {:.4f} s (median of {}), {:.2f} GB/s".format(
        distributed.size(), args.megabytes, seconds, args.rounds, args.megabytes / 1000 / seconds))


if __name__ == "__main__":
    main()

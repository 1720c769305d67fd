"""TensorFlow, imported quietly and with threads set to suit the build.

Import TensorFlow from here (``from session import tf``) and before any other module that imports
it: OpenMP reads its settings once, when the library loads.
"""

import os
import warnings

# OpenMP's threads (MKL builds) spin for 200 ms after each parallel region by default, which takes
# the cores from image decoding; 1 ms keeps them warm between layers and no longer.
os.environ.setdefault("KMP_BLOCKTIME", "1")
os.environ.setdefault("KMP_SETTINGS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # numpy's on TensorFlow's own type table
    import tensorflow.compat.v1 as tf
    from tensorflow.python import pywrap_tensorflow

tf.logging.set_verbosity(tf.logging.ERROR)


def is_mkl_build():
    """Whether this TensorFlow was built with Intel's MKL-DNN."""
    return bool(pywrap_tensorflow.IsMklEnabled())


def new_session(graph=None, threads=None):
    """A session whose thread pools suit the build.

    Parameters
    ----------
    graph : tf.Graph, optional
        The default graph if absent.
    threads : int, optional
        Threads inside one operation; all cores if absent. With 1 a run on a CPU is repeatable to
        the bit.

    Returns
    -------
    tf.Session
        Operations run one at a time when there are MKL threads to fill the cores inside each.
    """
    config = tf.ConfigProto()
    config.gpu_options.allow_growth = True
    if threads:
        config.intra_op_parallelism_threads = threads
    if threads == 1 or is_mkl_build():
        config.inter_op_parallelism_threads = 1
    return tf.Session(graph=graph, config=config)

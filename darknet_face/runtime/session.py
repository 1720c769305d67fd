"""TensorFlow in graph mode, imported quietly: version 1.15, or version 2 in its v1 mode.

Import TensorFlow from here (``from darknet_face.runtime.session import tf``): the settings below
are read once, when the library loads. That is when the first name of ``tf`` is used, so importing
this module is quick. Everything that differs between the two runtimes is in this file.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import re
import sys
import tempfile
import typing
import warnings

from darknet_face.console import UserError

# OpenMP's threads (MKL builds) spin for 200 ms after each parallel region by default, which takes
# the cores from image decoding; 1 ms keeps them warm between layers and no longer.
os.environ.setdefault("KMP_BLOCKTIME", "1")
os.environ.setdefault("KMP_SETTINGS", "0")
# 3 also hides the error line that TensorFlow 2 prints on every machine without an NVIDIA driver.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow 2 leaves oneDNN off on processors without AVX-512 VNNI, and on Windows, where it is
# faster too. TensorFlow 1.15 knows no such variable.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# tf.layers needs Keras 2, which from TensorFlow 2.16 on is the package tf_keras.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

PRECISIONS = ("float32", "bfloat16", "float16")
# How Linux names a processor's bfloat16 instructions in /proc/cpuinfo.
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}


@contextlib.contextmanager
def quiet() -> typing.Iterator[None]:
    """Hold back what native code prints to stderr, and print it only if the block fails."""
    try:
        kept = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@functools.lru_cache(None)
def _import_tensorflow() -> typing.Any:
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")  # numpy's about TensorFlow 1.15's own type table
        try:
            import tensorflow.compat.v1 as module
        except ImportError as error:
            raise UserError("TensorFlow can't be imported ({}); training, freezing and its formats "
                            "need it: pip install tensorflow, or name an .npz and "
                            "--precision float32".format(error))

        module.logging.set_verbosity(module.logging.ERROR)
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        # For 1.15 too: a parent process with TensorFlow 2 leaves TF2_BEHAVIOR=1 in the environment.
        module.disable_v2_behavior()
    # This project uses tf.layers on purpose, so its users need not read that it is deprecated.
    warnings.filterwarnings("ignore", "`tf.layers", UserWarning)
    return module


class _TensorFlow:
    """TensorFlow's v1 API, imported when the first of its names is asked for.

    The import takes seconds, and not everything that uses this module comes to need it.
    """

    def __getattr__(self, name: str) -> typing.Any:
        return getattr(_import_tensorflow(), name)


tf: typing.Any = _TensorFlow()


def protobuf(name: str) -> typing.Any:
    """A module of TensorFlow's message types, such as ``saved_model_pb2``, imported quietly."""
    _import_tensorflow()
    return importlib.import_module("tensorflow.core.protobuf." + name)


def is_tf2() -> bool:
    """Whether this is TensorFlow 2 rather than 1.15."""
    return not tf.__version__.startswith("1.")


def checkpoint_errors() -> tuple[type[BaseException], ...]:
    """What reading a damaged checkpoint raises: TensorFlow 2 lets C++'s kinds of error through."""
    return (tf.errors.OpError, ValueError, IndexError)


def is_mkl_build() -> bool:
    """Whether this TensorFlow computes convolutions by oneDNN (formerly MKL-DNN)."""
    if is_tf2():
        from tensorflow.python.util import _pywrap_util_port as features
    else:
        from tensorflow.python import pywrap_tensorflow as features
    return bool(features.IsMklEnabled())


def has_gpu() -> bool:
    """Whether TensorFlow sees an NVIDIA GPU that it can use."""
    return bool(tf.config.experimental.list_physical_devices("GPU"))


def check_precision(precision: str) -> None:
    """Refuse a precision that this TensorFlow or this processor can't compute in.

    Parameters
    ----------
    precision
        One of :data:`PRECISIONS`.

    Raises
    ------
    UserError
        With the reason and the remedy.
    """
    if precision == "float32":
        return
    if precision not in PRECISIONS:
        raise UserError("--precision {}: TensorFlow has no such mode; use inference.py, which has "
                        "ONNX Runtime, or --precision float32".format(precision))
    if not is_tf2():
        raise UserError("--precision {}: TensorFlow {} has no such mode; use TensorFlow 2 "
                        "(make RUNTIME=tf2) or --precision float32".format(
                            precision, tf.__version__))
    if precision == "float16" and not has_gpu():
        raise UserError("--precision float16: needs an NVIDIA GPU; use bfloat16 or float32")
    if precision == "bfloat16" and not _computes_bfloat16():
        raise UserError("--precision bfloat16: this processor has no bfloat16 instructions "
                        "({}); use --precision float32".format(
                            " or ".join(sorted(BFLOAT16_FLAGS))))


def _computes_bfloat16(cpuinfo="/proc/cpuinfo"):
    try:
        with open(cpuinfo) as stream:
            return any(BFLOAT16_FLAGS & set(line.split()) for line in stream
                       if line.startswith("flags"))
    except OSError:  # not Linux
        return False


@contextlib.contextmanager
def explain_memory_errors(remedy: str) -> typing.Iterator[None]:
    """Turn the out-of-memory errors of a block, or of a decorated function, into one line.

    Parameters
    ----------
    remedy
        What to try, for the error line.

    Raises
    ------
    UserError
        With exit code 1.
    """
    try:
        yield
    except _memory_errors() as error:
        message = str(getattr(error, "message", error))
        if "No space left" in message:
            raise UserError("no space left on the disk; free some", exit_code=1)
        tensor = re.search(r"tensor with shape ?\[[^]]*\]", message)
        raise UserError("out of memory{}; {}".format(
            " for a " + tensor.group() if tensor else "", remedy), exit_code=1)


def _memory_errors() -> tuple[type[BaseException], ...]:
    if not sys.modules.get("tensorflow"):
        return (MemoryError,)
    return (MemoryError, tf.errors.ResourceExhaustedError)


def new_session(graph: typing.Any = None, threads: int | None = None,
                precision: str = "float32", fuse: bool = True) -> typing.Any:
    """Open a session with thread pools that suit the build.

    Parameters
    ----------
    graph
        The default graph if absent.
    threads
        Threads inside one operation; all cores if absent. With 1, runs on a CPU give the same bits.
    precision
        One of :data:`PRECISIONS`, for convolutions and matrix products. TensorFlow's graph rewriter
        inserts the casts; variables, feeds and fetches stay float32.
    fuse
        Let TensorFlow fuse neighbouring operations. Of a convolution and a batch norm in inference
        TensorFlow 2's oneDNN makes one that takes eight times as long on processors without
        AVX-512: give False for graphs that have both.

    Returns
    -------
    tf.Session
        With oneDNN it runs one operation at a time, since each uses all cores.

    Raises
    ------
    UserError
        For a precision that :func:`check_precision` refuses.
    """
    check_precision(precision)
    config = tf.ConfigProto()
    config.gpu_options.allow_growth = True
    if threads:
        config.intra_op_parallelism_threads = threads
    if threads == 1 or is_mkl_build():
        config.inter_op_parallelism_threads = 1
    rewriter = config.graph_options.rewrite_options
    if not fuse:
        rewriter.remapping = rewriter.OFF
    if precision == "bfloat16":
        rewriter.auto_mixed_precision_onednn_bfloat16 = rewriter.ON
    elif precision == "float16":
        rewriter.auto_mixed_precision = rewriter.ON
    return tf.Session(graph=graph, config=config)

"""TensorFlow of either version in a session: precision, threads, and silence."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from darknet19 import build
from darknet_face.console import UserError
from darknet_face.engines.tensorflow_classifier import classifier_from_weights
from darknet_face.images.file_lists import load_split
from darknet_face.images.reader import read_batches
from darknet_face.runtime import session
from darknet_face.runtime.session import (
    check_precision,
    checkpoint_errors,
    explain_memory_errors,
    is_mkl_build,
    is_tf2,
    new_session,
    tf,
)
from darknet_face.weights.model_file import read_model

needs_bfloat16 = pytest.mark.skipif(
    not (is_tf2() and session._computes_bfloat16()),
    reason="needs TensorFlow 2 and a processor with bfloat16 instructions")


IMPORT = "from darknet_face.runtime.session import tf; tf.Graph"  # a name of it loads TensorFlow


def test_tensorflow_is_loaded_at_its_first_use():
    program = ("import sys; from darknet_face.runtime.session import tf; import darknet19, clr\n"
               "assert 'tensorflow' not in sys.modules; tf.Graph\n"
               "assert 'tensorflow' in sys.modules")
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_the_import_says_nothing():
    ended = subprocess.run([sys.executable, "-c", IMPORT], cwd=ROOT, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT)
    assert (ended.returncode, ended.stdout) == (0, b"")


def test_the_import_needs_no_stderr():
    command = '"{}" -c "{}" 2>&-'.format(sys.executable, IMPORT)
    ended = subprocess.run(["sh", "-c", command], cwd=ROOT, stdout=subprocess.PIPE)
    assert (ended.returncode, ended.stdout) == (0, b"")


def test_it_is_graph_mode_whatever_a_parent_process_left_behind():
    command = IMPORT + "; print(tf.executing_eagerly(), tf.constant(1.0))"
    ended = subprocess.run([sys.executable, "-c", command], cwd=ROOT, stdout=subprocess.PIPE,
                           text=True, env=dict(os.environ, TF2_BEHAVIOR="1"), check=True)
    assert ended.stdout.startswith("False Tensor(")


def test_what_is_held_back_is_printed_if_the_block_fails(capfd):
    with session.quiet():
        os.write(2, b"nothing to worry about")
    assert capfd.readouterr().err == ""
    with pytest.raises(ImportError), session.quiet():
        os.write(2, b"the reason")
        raise ImportError
    assert capfd.readouterr().err == "the reason"


def test_float32_is_always_there():
    check_precision("float32")


@pytest.mark.skipif(is_tf2(), reason="TensorFlow 2 has the others")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_tensorflow_1_15_has_float32_alone(precision):
    with pytest.raises(UserError, match="TensorFlow 1.15.* RUNTIME=tf2.*float32"):
        new_session(precision=precision)


@pytest.mark.skipif(not is_tf2(), reason="TensorFlow 1.15 refuses it for another reason")
def test_float16_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(session, "has_gpu", lambda: False)
    with pytest.raises(UserError, match="float16: needs an NVIDIA GPU; use bfloat16 or float32"):
        check_precision("float16")
    monkeypatch.setattr(session, "has_gpu", lambda: True)
    check_precision("float16")


@pytest.mark.skipif(not is_tf2(), reason="TensorFlow 1.15 refuses it for another reason")
def test_bfloat16_needs_its_instructions(monkeypatch):
    monkeypatch.setattr(session, "_computes_bfloat16", lambda: False)
    with pytest.raises(UserError, match="no bfloat16 instructions .*avx512_bf16.*float32"):
        check_precision("bfloat16")


@pytest.mark.parametrize("flags, expected", [
    ("fpu avx512f avx512_bf16", True), ("fpu amx_bf16 amx_tile", True),
    ("fpu avx512f avx512_fp16", False), ("", False)])
def test_the_processor_s_flags(tmp_path, flags, expected):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: avx512_bf16\nflags\t\t: " + flags + "\n")
    assert session._computes_bfloat16(str(path)) == expected
    assert not session._computes_bfloat16(str(tmp_path / "none"))


@needs_bfloat16
def test_bfloat16_answers_are_close(sample_dir):
    """The released model's: they move, but no image changes its class."""
    weights = read_model(os.path.join(ROOT, "saved_models", "darknet19_face.npz")).weights
    _, images, _ = next(read_batches(load_split(sample_dir, "test").paths[::4], 10, 96))
    exact, close = (classifier_from_weights(weights, 96, 1, precision)(images)
                    for precision in ("float32", "bfloat16"))
    assert close.dtype == np.float32
    assert 1e-6 < np.abs(exact - close).max() < 0.05
    np.testing.assert_array_equal(exact.argmax(axis=1), close.argmax(axis=1))


@needs_bfloat16
def test_training_in_bfloat16_keeps_float32_variables_and_checkpoints(tmp_path):
    rng = np.random.RandomState(0)
    with tf.Graph().as_default() as graph:
        images = tf.constant(rng.rand(4, 32, 32, 3), tf.float32)
        logits, _ = build(images, training=True)
        loss = tf.losses.sparse_softmax_cross_entropy([0, 1, 0, 1], logits)
        step = tf.train.AdamOptimizer(1e-3).minimize(loss)
        with new_session(graph, 1, "bfloat16") as opened:
            opened.run(tf.global_variables_initializer())
            before = opened.run(tf.trainable_variables())
            opened.run(step)
            after = opened.run(tf.trainable_variables())
            prefix = tf.train.Saver().save(opened, str(tmp_path / "model"))
    assert all(array.dtype == np.float32 for array in after)
    assert all(np.isfinite(array).all() for array in after)
    moved = np.abs(after[0] - before[0])
    assert moved.max() > 0 and (moved < 2e-3).all()  # Adam's first step is the rate, not rounded up
    kinds = tf.train.NewCheckpointReader(prefix).get_variable_to_dtype_map()
    assert set(kinds.values()) == {tf.float32}


def test_one_thread_is_one_thread():
    with new_session(threads=1) as opened:
        assert opened._config.intra_op_parallelism_threads == 1
        assert opened._config.inter_op_parallelism_threads == 1


def test_damaged_checkpoints_raise_what_is_named(tmp_path):
    (tmp_path / "model.index").write_bytes(b"no table")
    with pytest.raises(checkpoint_errors()):
        tf.train.NewCheckpointReader(str(tmp_path / "model"))


OOM = ("OOM when allocating tensor with shape[4194304,4194304] and type float on /job:localhost/"
       "replica:0/task:0/device:CPU:0 by allocator cpu\n\t [[{{node MatMul}}]]\nHint: If you want "
       "to see a list of allocated tensors when OOM happens, add ...")


def is_explained(caught):
    message = str(caught.value)
    return caught.value.exit_code == 1 and message == (
        "out of memory for a tensor with shape[4194304,4194304]; use a smaller --batch-size")


@pytest.mark.parametrize("before", [
    "", "Graph execution error:\n\nDetected at node 'MatMul' defined at (most recent call last):\n"
        "    File \"train.py\", line 9, in <module>\nNode: 'MatMul'\n"])
def test_too_little_memory_is_one_line(before):
    """In the words of TensorFlow 1.15 and 2.21."""
    with pytest.raises(UserError) as caught, explain_memory_errors("use a smaller --batch-size"):
        raise tf.errors.ResourceExhaustedError(None, None, before + OOM)
    assert is_explained(caught)


@pytest.mark.skipif(is_mkl_build(), reason="oneDNN's allocator waits for 20 s")
def test_what_tensorflow_raises_is_explained():
    with tf.Graph().as_default(), tf.Session() as opened:
        square = tf.fill(2 * [tf.placeholder_with_default(1 << 22, [])], 1.0)  # 64 TiB
        with pytest.raises(UserError) as caught, explain_memory_errors(
                "use a smaller --batch-size"):
            opened.run(square)
    assert is_explained(caught)

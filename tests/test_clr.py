"""The cyclical learning rate against the paper's formula and an independent implementation."""

import numpy as np
import pytest

import clr
from darknet_face.runtime.session import tf

BASE, MAX, STEP_SIZE, GAMMA = 1e-4, 1e-3, 50, 0.99


def rates(policy, steps, step_size=STEP_SIZE, **options):
    """The graph's rate at each step, float32 [len(steps)]."""
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.placeholder(tf.int64, [])
        rate = clr.cyclical_learning_rate(step, BASE, MAX, step_size, policy, **options)
        return np.array([session.run(rate, {step: each}) for each in steps])


def interpolated(policy, t):
    """The same by another road: a wave interpolated between its corners, not the formula."""
    corners = [cycle * 2 * STEP_SIZE + half * STEP_SIZE for cycle in range(6) for half in (0, 1)]
    wave = np.interp(t, corners, [0, 1] * 6)
    cycle = t // (2 * STEP_SIZE) + 1
    scale = {"triangular": 1.0, "triangular2": 2.0 ** (1 - cycle), "exp_range": GAMMA ** t}[policy]
    return BASE + (MAX - BASE) * wave * scale


@pytest.mark.parametrize("policy", clr.POLICIES)
def test_equals_an_independent_implementation(policy):
    steps = range(0, 500, 7)
    expected = [interpolated(policy, t) for t in steps]
    np.testing.assert_allclose(rates(policy, steps, gamma=GAMMA), expected, rtol=1e-6)


# Worked by hand from section 3: quarter points of the first three cycles.
TABLE = [
    (0, 1e-4, 1e-4, 1e-4),
    (25, 5.5e-4, 5.5e-4, 1e-4 + 4.5e-4 * 0.99 ** 25),
    (50, 1e-3, 1e-3, 1e-4 + 9e-4 * 0.99 ** 50),
    (75, 5.5e-4, 5.5e-4, 1e-4 + 4.5e-4 * 0.99 ** 75),
    (100, 1e-4, 1e-4, 1e-4),
    (150, 1e-3, 5.5e-4, 1e-4 + 9e-4 * 0.99 ** 150),
    (225, 5.5e-4, 1e-4 + 4.5e-4 / 4, 1e-4 + 4.5e-4 * 0.99 ** 225),
    (250, 1e-3, 1e-4 + 9e-4 / 4, 1e-4 + 9e-4 * 0.99 ** 250),
]


@pytest.mark.parametrize("column, policy", enumerate(clr.POLICIES))
def test_equals_the_papers_formula(column, policy):
    steps = [row[0] for row in TABLE]
    expected = [row[1 + column] for row in TABLE]
    np.testing.assert_allclose(rates(policy, steps, gamma=GAMMA), expected, rtol=1e-6)


def test_stays_exact_far_into_a_long_training():
    """At step 2^24 + 1 float32 arithmetic would lose the odd step."""
    far = (2 ** 24 // 200 + 1) * 200
    np.testing.assert_allclose(
        rates("triangular", [far + 1, far + 50, far + 99], step_size=50),
        [1e-4 + 9e-4 / 50, 1e-3, 1e-4 + 9e-4 / 50], rtol=1e-6)


def test_fractional_step_sizes_reach_the_top():
    steps = np.arange(0, 16)
    found = rates("triangular", steps, step_size=2.5)
    assert found[5] == pytest.approx(BASE) and found[10] == pytest.approx(BASE)
    assert found.max() <= MAX * (1 + 1e-6)


def test_follows_the_global_step_in_training():
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.train.get_or_create_global_step()
        rate = clr.cyclical_learning_rate(step, BASE, MAX, 2)
        advance = tf.assign_add(step, 1)
        session.run(tf.global_variables_initializer())
        found = []
        for _ in range(5):
            found.append(session.run(rate))
            session.run(advance)
    np.testing.assert_allclose(found, [1e-4, 5.5e-4, 1e-3, 5.5e-4, 1e-4], rtol=1e-6)


@pytest.mark.parametrize("options", [
    dict(policy="cosine"), dict(step_size=0), dict(step_size=-1), dict(max_lr=1e-5)])
def test_senseless_settings_are_refused(options):
    arguments = dict(base_lr=BASE, max_lr=MAX, step_size=10)
    arguments.update(options)
    with tf.Graph().as_default(), pytest.raises(ValueError):
        clr.cyclical_learning_rate(0, **arguments)


def test_linear_rate_of_the_range_test():
    with tf.Graph().as_default(), tf.Session() as session:
        found = [session.run(clr.linear_learning_rate(tf.constant(t), 0, 0.01, 100))
                 for t in (0, 25, 100)]
    np.testing.assert_allclose(found, [0, 0.0025, 0.01], rtol=1e-6)


def test_plot(run_script, tmp_path):
    path = tmp_path / "clr.png"
    assert run_script(clr, "--plot", path, "--steps", 20).code == 0
    assert path.stat().st_size > 5000
    assert run_script(clr, "--plot", tmp_path / "clr.xyz").code == 2
    assert run_script(clr, "--base-lr", 1, "--max-lr", 0.5).code == 2


def test_gradual_warmup():
    steps = [0, 5, 10, 50]
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.placeholder(tf.int64, [])
        for factor, duration, expected in ((4, 10.0, [1, 2.5, 4, 4]), (4, 0.0, [4, 4, 4, 4]),
                                           (1, 10.0, [1, 1, 1, 1])):
            scale = clr.gradual_warmup(step, factor, duration)
            np.testing.assert_allclose([session.run(scale, {step: t}) for t in steps], expected)

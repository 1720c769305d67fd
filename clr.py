"""Cyclical learning rates as graph operations on the global step.

Source: Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017
(arXiv 1506.01186), sections 3.1 to 3.3.

``python clr.py --plot clr.png`` draws the three policies.
"""

import argparse

from darknet_face.images.contact_sheets import image_name, save_chart
from darknet_face.runtime.session import tf
from utils import HelpFormatter, cli, number_type

POLICIES = ("triangular", "triangular2", "exp_range")


def cyclical_learning_rate(step, base_lr, max_lr, step_size, policy="triangular", gamma=0.99994):
    """The learning rate at a training step.

    ``cycle = floor(1 + t / (2 s))``, ``x = |t / s - 2 cycle + 1|`` and
    ``lr = base + (max - base) * max(0, 1 - x) * scale``, with scale 1 (triangular),
    ``1 / 2^(cycle - 1)`` (triangular2) or ``gamma^t`` (exp_range).

    Parameters
    ----------
    step : tf.Tensor or int
        t, the number of updates made so far: scalar integer.
    base_lr, max_lr : float
        The cycle's ends. The rate starts at ``base_lr``.
    step_size : float
        s, half a cycle, in updates; the paper advises 2 to 10 epochs' worth.
    policy : {"triangular", "triangular2", "exp_range"}
    gamma : float
        The decay per update of exp_range.

    Returns
    -------
    tf.Tensor
        float32 scalar.

    Raises
    ------
    ValueError
        For an unknown policy, a step size that is not positive or max_lr below base_lr.
    """
    if policy not in POLICIES:
        raise ValueError("unknown policy {!r}; one of {}".format(policy, ", ".join(POLICIES)))
    if step_size <= 0:
        raise ValueError("step_size must be positive, not {}".format(step_size))
    if max_lr < base_lr:
        raise ValueError("max_lr {} is below base_lr {}".format(max_lr, base_lr))
    with tf.name_scope("cyclical_learning_rate"):
        # float64: a float32 step loses whole updates beyond 2^24, and its cycle ends would wobble.
        t = tf.cast(step, tf.float64)
        cycle = tf.floor(1 + t / (2 * step_size))
        x = tf.abs(t / step_size - 2 * cycle + 1)
        scale = {
            "triangular": lambda: 1.0,
            "triangular2": lambda: 0.5 ** (cycle - 1),
            "exp_range": lambda: gamma ** t,
        }[policy]()
        rate = base_lr + (max_lr - base_lr) * tf.maximum(tf.zeros_like(x), 1 - x) * scale
        return tf.cast(rate, tf.float32)


def linear_learning_rate(step, low, high, total_steps):
    """The rate of Smith's range test: from ``low`` to ``high`` in a straight line.

    Parameters
    ----------
    step : tf.Tensor or int
        Scalar integer, 0 .. total_steps.
    low, high : float
    total_steps : int

    Returns
    -------
    tf.Tensor
        float32 scalar.
    """
    return tf.cast(low + (high - low) * tf.cast(step, tf.float64) / total_steps, tf.float32)


def gradual_warmup(step, factor, warmup_steps):
    """A multiple of the learning rate that grows from 1 to ``factor`` in a straight line.

    Source: Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017
    (arXiv 1706.02677), section 2.2.

    Parameters
    ----------
    step : tf.Tensor or int
        Scalar integer.
    factor : float
        With N ranks N, by section 2.1.
    warmup_steps : float
        Steps until ``factor`` is reached; 0 starts with it.

    Returns
    -------
    tf.Tensor
        float32 scalar.
    """
    if not warmup_steps:
        return tf.constant(factor, tf.float32)
    return 1 + (factor - 1) * tf.minimum(tf.cast(step, tf.float32) / warmup_steps, 1.0)


def plot_policies(path, base_lr, max_lr, step_size, gamma, steps):
    """Draw the three policies over ``steps`` updates into the image ``path``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.placeholder(tf.int64, [])
        figure, axes = plt.subplots(len(POLICIES), sharex=True, figsize=(8, 6))
        for axis, policy in zip(axes, POLICIES):
            rate = cyclical_learning_rate(step, base_lr, max_lr, step_size, policy, gamma)
            axis.plot([session.run(rate, {step: t}) for t in range(steps)])
            axis.set(title=policy, ylabel="learning rate")
        axes[-1].set_xlabel("training step")
        figure.tight_layout()
        save_chart(path, figure, 120)
        plt.close(figure)


@cli
def main():
    parser = argparse.ArgumentParser(
        description="Draw the cyclical learning rate policies.",
        formatter_class=HelpFormatter)
    rate = number_type(float, 0)
    parser.add_argument("--plot", type=image_name, default="clr.png", help="the image to write")
    parser.add_argument("--base-lr", type=rate, default=1e-4, help="lower end of the cycle")
    parser.add_argument("--max-lr", type=rate, default=1e-3, help="upper end of the cycle")
    parser.add_argument("--step-size", type=number_type(int, 1), default=100,
                        help="half a cycle, in training steps")
    parser.add_argument("--gamma", type=number_type(float, 0, 1), default=0.997,
                        help="decay per step of exp_range")
    parser.add_argument("--steps", type=number_type(int, 1), default=600, help="steps to draw")
    args = parser.parse_args()
    if args.max_lr < args.base_lr:
        parser.error("--max-lr is below --base-lr")
    plot_policies(args.plot, args.base_lr, args.max_lr, args.step_size, args.gamma, args.steps)
    print("wrote {}".format(args.plot))


if __name__ == "__main__":
    main()

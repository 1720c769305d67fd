"""The progress bar of an epoch and its speed."""

from __future__ import annotations

import time

from darknet_face.console import progress


class Meter:
    """Counts the steps and images of an epoch. Use it as a context manager.

    Parameters
    ----------
    description : str
        Stands before the bar.
    steps : int
        Of the whole epoch.
    done : int
        Steps of the epoch that were trained before.
    images_per_step : int
    """

    def __init__(self, description, steps, done, images_per_step):
        self._bar = progress(total=steps, initial=done, desc=description, unit="step")
        self._images_per_step = images_per_step
        self._steps = 0
        self._started = time.time()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()

    @property
    def is_visible(self):
        """Whether there is a bar to show metrics on."""
        return not self._bar.disable

    @property
    def images_per_second(self):
        return self._steps * self._images_per_step / max(time.time() - self._started, 1e-6)

    def step(self):
        """Count a step."""
        self._steps += 1
        self._bar.update()

    def show(self, loss, accuracy, learning_rate):
        """Write metrics behind the bar."""
        self._bar.set_postfix_str("loss {:.4f}, accuracy {:.4f}, lr {:.2g}, {:.1f} images/s".format(
            loss, accuracy, learning_rate, self.images_per_second))

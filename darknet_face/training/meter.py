"""The progress bar of an epoch and its speed."""

from __future__ import annotations

import time

from darknet_face.console import progress


class Meter:
    """Counts the steps and images of an epoch. Use it as a context manager.

    Parameters
    ----------
    description
        Stands before the bar.
    steps
        Of the whole epoch.
    done
        Steps of the epoch that were trained before.
    images_per_step
    """

    def __init__(self, description: str, steps: int, done: int, images_per_step: int) -> None:
        self._bar = progress(total=steps, initial=done, desc=description, unit="step")
        self._images_per_step = images_per_step
        self._steps = 0
        self._started = time.time()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @property
    def is_visible(self) -> bool:
        """Whether there is a bar to show metrics on."""
        return not self._bar.disable

    @property
    def images_per_second(self) -> float:
        return self._steps * self._images_per_step / max(time.time() - self._started, 1e-6)

    def step(self) -> None:
        """Count a step."""
        self._steps += 1
        self._bar.update()

    def show(self, loss: float, accuracy: float, learning_rate: float) -> None:
        """Write metrics behind the bar."""
        self._bar.set_postfix_str("loss {:.4f}, accuracy {:.4f}, lr {:.2g}, {:.1f} images/s".format(
            loss, accuracy, learning_rate, self.images_per_second))

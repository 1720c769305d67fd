"""Which images each training step takes, over any number of ranks.

An epoch is an order of images. At every step each rank takes the next few of its own. Together
the ranks take what one process with a larger batch would take.

A training that resumes with as many ranks as before continues at the same step of its epoch. With
another number of ranks it begins that epoch again; the count of steps continues.
"""

from __future__ import annotations

import collections
import typing

# A part of the training by one number of ranks: the step that it begins with, the epoch that begins
# at this step (from 0), and the number of ranks.
Segment = collections.namedtuple("Segment", "step epoch ranks")

# One rank's part of a step: images ``start .. start + count - 1`` of each class in the order of
# the epoch. ``weight`` is how much its mean loss counts; the ranks' weights have a mean of 1.
Share = collections.namedtuple("Share", "epoch start count weight")

START = Segment(step=0, epoch=0, ranks=1)


class EpochSchedule:
    """Turns step numbers into positions in epochs.

    Parameters
    ----------
    length
        Images of the larger class: once through them is an epoch.
    half
        Images of each class that a rank takes in a step.
    segments
        The segments so far, the current one last. Only its steps can be asked for.
    """

    def __init__(self, length: int, half: int, segments: typing.Sequence[Segment] = (START,)
                ) -> None:
        self.length = length
        self.half = half
        self.segments = tuple(Segment(*each) for each in segments)
        self.segment = self.segments[-1]
        self.ranks = self.segment.ranks
        self.steps_per_epoch = -(-length // (half * self.ranks))

    @property
    def equivalent_steps_per_epoch(self) -> typing.Any:
        """Steps of an epoch by one process."""
        return -(-self.length // self.half)

    def first_step(self, epoch: int) -> typing.Any:
        """The first step of an epoch, from 0."""
        return self.segment.step + (epoch - self.segment.epoch) * self.steps_per_epoch

    def place(self, step: int) -> typing.Any:
        """The epoch that a step belongs to, from 0, and the steps of this epoch before it."""
        epochs, steps = divmod(step - self.segment.step, self.steps_per_epoch)
        return self.segment.epoch + epochs, steps

    def share(self, step: int, rank: int = 0) -> Share:
        """What one rank takes at a step.

        At the last step of an epoch one process fills its batch from the next shuffle. Several
        ranks share out the images that are left. A rank for which none is left takes one with a
        weight of zero, since every rank has to take part in the step.
        """
        epoch, steps = self.place(step)
        position, stride = steps * self.half * self.ranks, self.half * self.ranks
        left = min(stride, self.length - position)
        if left == stride or self.ranks == 1:
            return Share(epoch, position + rank * self.half, self.half, 1.0)
        start, end = left * rank // self.ranks, left * (rank + 1) // self.ranks
        return Share(epoch, position + start, max(end - start, 1),
                     (end - start) * self.ranks / left)

    def equivalent_step(self, step: typing.Any) -> typing.Any:
        """The equivalent step of one process: learning rates are a function of it.

        Returns
        -------
        tf.Tensor or int
            ``step`` itself if there is one rank and always was.
        """
        done = step - self.segment.step
        epoch = self.segment.epoch + done // self.steps_per_epoch
        return (epoch * self.equivalent_steps_per_epoch
                + done % self.steps_per_epoch * self.ranks)

    def resumed(self, step: int, ranks: int) -> EpochSchedule:
        """The schedule that goes on from a checkpoint.

        Parameters
        ----------
        step
            The checkpoint's. Segments that begin there or later are forgotten: a kill has lost
            what they trained.
        ranks
        """
        segments = [each for each in self.segments if each.step < step]
        if not segments:
            segments = [Segment(0, 0, ranks)]
        elif segments[-1].ranks != ranks:
            epoch, _ = EpochSchedule(self.length, self.half, segments).place(step)
            segments.append(Segment(step, epoch, ranks))
        return EpochSchedule(self.length, self.half, segments)

"""Which pictures each training step takes, over any number of ranks.

An epoch is an order of pictures. At every step each rank takes its own next few of them, so that
together they take what one process with a batch as many times larger would. A run may go on with
another number of ranks in the middle of an epoch: the order is the same for any number, and only
the place in it counts.
"""

import collections

# A stretch of training by one number of ranks. ``step``, ``epoch`` and ``position`` say where it
# began, ``scale`` at which multiple of the learning rate.
Leg = collections.namedtuple("Leg", "step epoch position ranks scale")

# One rank's part of a step: pictures ``start .. start + count - 1`` of each class in the order of
# the epoch. ``weight`` is how much its mean counts beside the other ranks'; all weigh 1 on average.
Share = collections.namedtuple("Share", "epoch start count weight")

START = Leg(step=0, epoch=0, position=0, ranks=1, scale=1.0)


class Course:
    """Turns step numbers into places in epochs.

    Parameters
    ----------
    length : int
        Pictures of the larger class: once through them is an epoch.
    half : int
        Pictures of each class that a rank takes in a step.
    legs : sequence of Leg
        The stretches trained so far, the last of them under way. Steps before it are history and
        can't be asked for.
    scaling : bool
        Whether the learning rate is multiplied by the number of ranks.
    warmup_epochs : float
        Over so many epochs the multiple goes from where it was to where it is to be.
    """

    def __init__(self, length, half, legs=(START,), scaling=True, warmup_epochs=0.0):
        self.length = length
        self.half = half
        self.legs = tuple(legs)
        self.leg = self.legs[-1]
        self.scaling = scaling
        self.warmup_epochs = warmup_epochs
        self.steps_per_epoch = -(-length // (half * self.leg.ranks))
        # One process alone fills its last batch of an epoch from the next shuffle; several ranks,
        # and whoever goes on for them, take each picture once.
        self._fills = all(leg.ranks == 1 for leg in self.legs)

    def first_step(self, epoch):
        """The first step of an epoch, from 0, that the present leg has or would have had."""
        left = self.length - self.leg.position
        rest = -(-left // (self.half * self.leg.ranks))  # steps of the epoch that the leg began in
        return self.leg.step + rest + (epoch - self.leg.epoch - 1) * self.steps_per_epoch

    def place(self, step):
        """``(epoch, position)``: how many pictures of each class the epoch has had by ``step``."""
        stride = self.half * self.leg.ranks
        second = self.first_step(self.leg.epoch + 1)
        if step < second:
            return self.leg.epoch, self.leg.position + (step - self.leg.step) * stride
        epochs, steps = divmod(step - second, self.steps_per_epoch)
        return self.leg.epoch + 1 + epochs, steps * stride

    def share(self, step, rank=0):
        """What one rank takes at a step.

        The last step of an epoch may find fewer pictures than the ranks can take: they are shared
        out evenly, and a rank that gets none takes one at a weight of zero, since it has to take
        part in the step.

        Returns
        -------
        Share
        """
        epoch, position = self.place(step)
        ranks, stride = self.leg.ranks, self.half * self.leg.ranks
        left = min(stride, self.length - position)
        if left == stride or self._fills:
            return Share(epoch, position + rank * self.half, self.half, 1.0)
        start, end = left * rank // ranks, left * (rank + 1) // ranks
        return Share(epoch, position + start, max(end - start, 1), (end - start) * ranks / left)

    def clock(self, step):
        """The time that learning rates go by: steps of one process, whatever the ranks.

        Parameters
        ----------
        step : tf.Tensor or int

        Returns
        -------
        tf.Tensor or int
            ``step`` itself where there was never more than one process.
        """
        if self.legs == (START,):
            return step
        leg, epoch_length = self.leg, self.clock_of_epoch
        start = leg.epoch * epoch_length + leg.position // self.half
        after = step - self.first_step(leg.epoch + 1)
        here = start + (step - leg.step) * leg.ranks
        later = ((leg.epoch + 1 + after // self.steps_per_epoch) * epoch_length
                 + after % self.steps_per_epoch * leg.ranks)
        if isinstance(step, int):
            return here if after < 0 else later
        from runtime.session import (
            tf,  # not above: batch workers import this and need no TensorFlow
        )

        return tf.where(after < 0, here, later)

    @property
    def clock_of_epoch(self):
        """The length of an epoch in :meth:`clock`'s time."""
        return -(-self.length // self.half)

    def scale(self, step):
        """What to multiply the learning rate by: the number of ranks, reached gradually.

        Source: Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017
        (arXiv 1706.02677), sections 2.1 and 2.2.

        Parameters
        ----------
        step : tf.Tensor or int

        Returns
        -------
        tf.Tensor or float
        """
        leg = self.leg
        aim = float(leg.ranks) if self.scaling else 1.0
        if leg.scale == aim or not self.warmup_epochs:
            return aim
        passed = self.clock(step) - (leg.epoch * self.clock_of_epoch + leg.position // self.half)
        duration = self.warmup_epochs * self.clock_of_epoch
        if isinstance(step, int):
            return leg.scale + (aim - leg.scale) * min(passed / duration, 1.0)
        from runtime.session import tf

        done = tf.minimum(tf.cast(passed, tf.float32) / duration, 1.0)
        return leg.scale + (aim - leg.scale) * done

    def go_on(self, step, ranks):
        """The course from ``step`` on with a number of ranks that may be another.

        Steps after ``step``, and legs that began there or later, are forgotten: they were lost with
        the process that took them.
        """
        legs = [leg for leg in self.legs if leg.step < step]
        if not legs:
            legs = [START._replace(ranks=ranks)]
        elif legs[-1].ranks != ranks:
            before = self._with(legs)
            legs.append(Leg(step, *before.place(step), ranks=ranks, scale=before.scale(step)))
        return self._with(legs)

    def _with(self, legs):
        return Course(self.length, self.half, legs, self.scaling, self.warmup_epochs)

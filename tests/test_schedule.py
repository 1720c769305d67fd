"""Every image of an epoch once, whatever the number of ranks."""

import itertools

import numpy as np
import pytest

from darknet_face.images.file_lists import load_split
from darknet_face.runtime.session import tf
from darknet_face.training.loader import TrainingBatches
from darknet_face.training.schedule import START, EpochSchedule, Segment


def begin(length, half, ranks):
    return EpochSchedule(length, half).resumed(0, ranks)


def taken(schedule, first, last):
    """``(epoch, index)`` of whatever the ranks learn from in some steps."""
    for step, rank in itertools.product(range(first, last), range(schedule.ranks)):
        share = schedule.share(step, rank)
        if share.weight:
            for index in range(share.start, share.start + share.count):
                yield share.epoch, index


@pytest.mark.parametrize("length, half", [(16, 4), (17, 4), (3, 8), (1, 1), (100, 3)])
def test_one_process_counts_epochs_by_steps(length, half):
    schedule = begin(length, half, 1)
    per_epoch = -(-length // half)
    assert schedule.segments == (START,)
    for step in range(3 * per_epoch):
        epoch, done = divmod(step, per_epoch)
        assert schedule.place(step) == (epoch, done)
        assert schedule.share(step) == (epoch, done * half, half, 1.0)
        assert schedule.equivalent_step(step) == step
    assert schedule.first_step(2) == 2 * per_epoch


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize("length, half", [(16, 4), (17, 4), (31, 4), (3, 8), (1, 1), (100, 3)])
def test_ranks_take_each_picture_once(length, half, ranks):
    schedule = begin(length, half, ranks)
    for epoch in range(3):
        seen = list(taken(schedule, schedule.first_step(epoch), schedule.first_step(epoch + 1)))
        assert sorted(seen) == [(epoch, index) for index in range(length)]
    for step in range(schedule.first_step(2)):
        shares = [schedule.share(step, rank) for rank in range(ranks)]
        assert all(1 <= share.count <= half for share in shares)
        assert sum(share.weight for share in shares) == pytest.approx(ranks)
        learned = [share.count for share in shares if share.weight]
        # The weighted mean of the ranks' means is the mean over all the images.
        np.testing.assert_allclose(
            [share.weight / ranks / share.count for share in shares if share.weight],
            1 / sum(learned))


def test_two_ranks_take_together_what_one_with_twice_the_batch_takes():
    two, one = begin(48, 4, 2), begin(48, 8, 1)
    for step in range(12):
        assert sorted(taken(two, step, step + 1)) == sorted(taken(one, step, step + 1))


def test_the_same_number_of_ranks_goes_on_in_the_middle_of_an_epoch():
    schedule = begin(45, 2, 3)  # 8 steps an epoch
    for step in (1, 5, 8, 21):
        assert schedule.resumed(step, 3).segments == schedule.segments


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_another_number_of_ranks_begins_the_epoch_again(ranks):
    before = begin(45, 2, 3)
    for step, epoch in ((5, 0), (8, 1), (13, 1), (17, 2)):
        schedule = before.resumed(step, ranks)
        assert schedule.segments == (Segment(0, 0, 3), Segment(step, epoch, ranks))
        assert schedule.place(step) == (epoch, 0)
        assert schedule.equivalent_step(step) == epoch * 23
        seen = list(taken(schedule, step, schedule.first_step(epoch + 1)))
        assert sorted(set(seen)) >= [(epoch, index) for index in range(45)]


def test_learning_rates_count_epochs_alike_for_any_number_of_ranks():
    for ranks in (1, 2, 3, 5):
        schedule = begin(101, 4, ranks)
        for epoch in range(4):
            assert schedule.equivalent_step(schedule.first_step(epoch)) == epoch * 26
        assert schedule.equivalent_step(2) == 2 * ranks


def test_graph_and_python_agree():
    schedule = begin(45, 2, 3).resumed(4, 2).resumed(9, 4)
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.placeholder(tf.int64, [])
        tensor = schedule.equivalent_step(step)
        for number in range(9, 60):
            assert session.run(tensor, {step: number}) == schedule.equivalent_step(number)


def test_what_a_killed_run_took_after_its_checkpoint_is_forgotten():
    schedule = EpochSchedule(16, 2).resumed(0, 2).resumed(3, 1)
    assert [segment.ranks for segment in schedule.segments] == [2, 1]
    first = schedule.segments[:1]
    assert schedule.resumed(3, 2).segments == first, "killed again before its first checkpoint"
    assert schedule.resumed(2, 2).segments == first, "an older checkpoint"
    assert schedule.resumed(4, 2).segments[2] == Segment(4, 0, 2)
    assert schedule.resumed(0, 1).segments == (START,)


def test_batches_follow_the_schedule(sample_dir):
    """Images of two ranks' batches, one of them short, are those of the order, each once."""
    split = load_split(sample_dir, "train")
    split = type(split)(split.faces[:11], split.negatives[:7])
    alone = TrainingBatches(split, 22, 32, augment="none").batch(0)[0][:11]
    schedule = begin(11, 4, 2)
    shown = []
    for step, rank in itertools.product(range(2), range(2)):
        images, labels, _ = TrainingBatches(
            split, 8, 32, augment="none", schedule=schedule, rank=rank).batch(step)
        assert (labels == 0).sum() == (labels == 1).sum() == len(labels) // 2
        shown.extend(images[:len(labels) // 2])
    np.testing.assert_array_equal(np.stack(shown), alone)

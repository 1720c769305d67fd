"""Every picture of an epoch once, whatever the number of ranks and however often it changes."""

import itertools

import numpy as np
import pytest

from pictures.lists import load_split
from runtime.session import tf
from training.loader import TrainingBatches
from training.schedule import START, Course, Leg


def begin(length, half, ranks, **options):
    return Course(length, half, **options).go_on(0, ranks)


def taken(course, first, last):
    """``(epoch, index)`` of whatever the ranks learn from in some steps."""
    for step, rank in itertools.product(range(first, last), range(course.leg.ranks)):
        share = course.share(step, rank)
        if share.weight:
            for index in range(share.start, share.start + share.count):
                yield share.epoch, index


@pytest.mark.parametrize("length, half", [(16, 4), (17, 4), (3, 8), (1, 1), (100, 3)])
def test_one_process_goes_as_it_always_did(length, half):
    course = begin(length, half, 1)
    per_epoch = -(-length // half)
    assert course.legs == (START,)
    for step in range(3 * per_epoch):
        epoch, position = divmod(step, per_epoch)
        assert course.share(step) == (epoch, position * half, half, 1.0)
        assert course.clock(step) is step and course.scale(step) == 1
    assert course.first_step(2) == 2 * per_epoch


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize("length, half", [(16, 4), (17, 4), (31, 4), (3, 8), (1, 1), (100, 3)])
def test_ranks_take_each_picture_once(length, half, ranks):
    course = begin(length, half, ranks)
    for epoch in range(3):
        seen = list(taken(course, course.first_step(epoch), course.first_step(epoch + 1)))
        assert sorted(seen) == [(epoch, index) for index in range(length)]
    for step in range(course.first_step(2)):
        shares = [course.share(step, rank) for rank in range(ranks)]
        assert all(1 <= share.count <= half for share in shares)
        assert sum(share.weight for share in shares) == pytest.approx(ranks)
        learned = [share.count for share in shares if share.weight]
        # The weighted mean of the ranks' means is the mean over all the pictures.
        np.testing.assert_allclose(
            [share.weight / ranks / share.count for share in shares if share.weight],
            1 / sum(learned))


def test_two_ranks_take_together_what_one_with_twice_the_batch_takes():
    two, one = begin(48, 4, 2), begin(48, 8, 1)
    for step in range(12):
        assert sorted(taken(two, step, step + 1)) == sorted(taken(one, step, step + 1))


@pytest.mark.parametrize("changes", [
    [(2, 3), (1, 4), (2, 99)], [(1, 1), (3, 2), (1, 2), (4, 99)], [(2, 5), (2, 1), (1, 99)],
    [(4, 1), (3, 1), (2, 1), (1, 99)]])
def test_another_number_of_ranks_goes_on_in_the_middle_of_an_epoch(changes):
    length, step, seen, course = 45, 0, [], Course(45, 2, warmup_epochs=1.0)
    for ranks, steps in changes:
        before = course
        course = course.go_on(step, ranks)
        if step:
            assert course.place(step) == before.place(step), "epoch and place go on"
            assert course.scale(step) == before.scale(step)
            assert abs(course.clock(step) - before.clock(step)) < ranks + before.leg.ranks
        seen += taken(course, step, step + steps)
        step += steps
    whole = [(epoch, index) for epoch, index in seen if epoch < 2]
    assert sorted(whole) == [(epoch, index) for epoch in range(2) for index in range(length)]


def test_the_clock_counts_epochs_alike_for_any_number_of_ranks():
    for ranks in (1, 2, 3, 5):
        course = begin(101, 4, ranks)
        for epoch in range(4):
            assert course.clock(course.first_step(epoch)) == epoch * 26
    resumed = begin(101, 4, 3).go_on(5, 2)  # 60 of 101 pictures in
    assert resumed.place(5) == (0, 60) and resumed.clock(5) == 15
    assert resumed.clock(resumed.first_step(3)) == 78


def test_the_rate_grows_to_the_number_of_ranks_and_changes_gradually():
    course = begin(80, 4, 4, warmup_epochs=2.0)  # 5 steps an epoch
    np.testing.assert_allclose([course.scale(step) for step in (0, 5, 10, 50)], [1, 2.5, 4, 4])
    fewer = course.go_on(50, 2)  # 10 steps an epoch
    np.testing.assert_allclose([fewer.scale(step) for step in (50, 60, 70, 90)], [4, 3, 2, 2])
    assert begin(80, 4, 4, scaling=False, warmup_epochs=2.0).scale(50) == 1
    assert begin(80, 4, 4, warmup_epochs=0.0).scale(0) == 4


def test_graph_and_python_agree():
    course = begin(45, 2, 3, warmup_epochs=2.5).go_on(4, 2).go_on(9, 4)
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.placeholder(tf.int64, [])
        tensors = course.clock(step), course.scale(step)
        for number in range(9, 60):
            clock, scale = session.run(tensors, {step: number})
            assert clock == course.clock(number)
            assert scale == pytest.approx(course.scale(number))


def test_what_a_killed_run_took_after_its_checkpoint_is_forgotten():
    course = Course(16, 2).go_on(0, 2).go_on(3, 1)
    assert [leg.ranks for leg in course.legs] == [2, 1]
    assert course.go_on(3, 2).legs == course.legs[:1], "killed again before its first checkpoint"
    assert course.go_on(2, 2).legs == course.legs[:1], "an older checkpoint"
    assert course.go_on(4, 2).legs[2] == Leg(4, 0, 14, 2, 1.0)
    assert course.go_on(0, 1).legs == (START,)


def test_batches_follow_the_course(sample_dir):
    """Pictures of two ranks' batches, one of them short, are those of the order, each once."""
    split = load_split(sample_dir, "train")
    split = type(split)(split.faces[:11], split.negatives[:7])
    alone = TrainingBatches(split, 22, 32, augment="none").batch(0)[0][:11]
    course = begin(11, 4, 2)
    shown = []
    for step, rank in itertools.product(range(2), range(2)):
        images, labels, _ = TrainingBatches(
            split, 8, 32, augment="none", course=course, rank=rank).batch(step)
        assert (labels == 0).sum() == (labels == 1).sum() == len(labels) // 2
        shown.extend(images[:len(labels) // 2])
    np.testing.assert_array_equal(np.stack(shown), alone)

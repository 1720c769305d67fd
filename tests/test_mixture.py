"""Several sources in one training: shares as asked, every image before one comes again."""

import argparse
import collections

import numpy as np
import pytest

from darknet_face.console import UserError
from darknet_face.images.file_lists import CELEBA, Split, load_source, save_list
from darknet_face.training.mixture import Mixture, Source, load_mixture, parse_source


def split(name, faces, others):
    return Split(tuple("{}-face-{}".format(name, number) for number in range(faces)),
                 tuple("{}-other-{}".format(name, number) for number in range(others)))


SPLITS = [split("a", 100, 40), split("b", 10, 0), split("c", 30, 300)]


def sources_of(mixture, label, count, seed=0):
    paths = mixture.split[label]
    return [paths[index] for index in mixture.order(label, count, seed)]


def test_weights_are_shares():
    mixture = Mixture(SPLITS, [Source(CELEBA, 1, 1), Source("b", 2, 2), Source("c", 1, 3)])
    taken = sources_of(mixture, 0, 400)
    assert collections.Counter(path[0] for path in taken) == {"a": 100, "b": 200, "c": 100}
    each = collections.Counter(taken)
    assert {each["b-face-{}".format(number)] for number in range(10)} == {20}
    assert {each["c-face-{}".format(number)] for number in range(30)} == {3, 4}
    taken = sources_of(mixture, 1, 400)
    assert collections.Counter(path[0] for path in taken) == {"a": 100, "c": 300}
    assert len(set(taken)) == 340


def test_without_weights_a_source_weighs_what_it_has():
    mixture = Mixture(SPLITS, [Source(name, None, None) for name in "abc"])
    assert collections.Counter(path[0] for path in sources_of(mixture, 0, 280)) == {
        "a": 200, "b": 20, "c": 60}


def test_order_follows_from_the_seed():
    mixture = Mixture(SPLITS, [Source(name, None, None) for name in "abc"])
    np.testing.assert_array_equal(mixture.order(0, 50, 1), mixture.order(0, 50, 1))
    assert (mixture.order(0, 50, 1) != mixture.order(0, 50, 2)).any()


def test_one_source_goes_through_all_of_it_before_one_comes_again():
    mixture = Mixture([SPLITS[2]])
    order = mixture.order(0, 45, 3)
    assert len(order) == 60 and sorted(order[:30]) == sorted(order[30:]) == list(range(30))


def test_only_celebas_faces_are_aligned():
    mixture = Mixture(SPLITS, [Source("b", 1, 1), Source(CELEBA, 1, 1), Source("c", 1, 1)])
    assert mixture.aligned[0].sum() == 10 and mixture.aligned[0][100:110].all()


@pytest.mark.parametrize("text, source", [
    ("wider", Source("wider", None, None)), ("wider=2", Source("wider", 2, 2)),
    ("wider=2:0.5", Source("wider", 2, 0.5))])
def test_source_option(text, source):
    assert parse_source(text) == source


@pytest.mark.parametrize("text", ["", "=1", "a/b", "../x", "a=", "a=b", "a=1:", "a=-1", "a=nan",
                                  "a=1:2:3", "a=1e400"])
def test_bad_source_option(text):
    with pytest.raises(argparse.ArgumentTypeError):
        parse_source(text)


def test_lists_of_a_source(tmp_path, sample_dir):
    with pytest.raises(UserError, match="preprocess_wider.py"):
        load_source(str(tmp_path), "wider", "train")
    save_list(str(tmp_path / "wider_faces_train.pickle"), ["1.jpg"])
    assert load_source(str(tmp_path), "wider", "train") == ((str(tmp_path / "1.jpg"),), ())
    assert load_source(str(tmp_path), "wider", "val") == ((), ())
    assert load_source(sample_dir, CELEBA, "val") == load_mixture(
        sample_dir, [Source(CELEBA, None, None)], "val").split

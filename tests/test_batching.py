"""The queue between requests and the network: batches, bounds, failures, its end."""

import threading

import pytest

from darknet_face.classify.results import Result
from darknet_face.serving.batching import Batcher, Closed, Full


class Model:
    """Stands for the network: answers when it may, and notes its batches."""

    def __init__(self):
        self.may_answer = threading.Event()
        self.started = threading.Event()
        self.batches = []

    def __call__(self, pictures):
        self.batches.append(pictures)
        self.started.set()
        assert self.may_answer.wait(30)
        if "fail" in pictures:
            raise RuntimeError("no memory")
        return [Result(picture, 0.5, True, "FACE") for picture in pictures]

    def heat_map(self, picture):
        return "map of " + picture


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def batcher(model):
    batcher = Batcher(model, most_waiting=4, most_together=3)
    yield batcher
    model.may_answer.set()
    batcher.close()


def test_what_waits_is_classified_together(model, batcher):
    first, = batcher.submit(["a"])
    assert model.started.wait(30)
    others = [batcher.submit([name], wants_map=name == "c")[0] for name in "bcde"]
    assert len(batcher) == 4
    model.may_answer.set()
    assert [future.result(30).result.name for future in [first] + others] == list("abcde")
    assert model.batches == [["a"], ["b", "c", "d"], ["e"]]
    assert [future.result().heat_map for future in others] == [None, "map of c", None, None]


def test_a_request_is_taken_whole_or_not_at_all(model, batcher):
    batcher.submit(["a"])
    assert model.started.wait(30)
    waiting = batcher.submit(["b", "c"])
    with pytest.raises(Full):
        batcher.submit(["d", "e", "f"])
    assert len(batcher) == 2
    model.may_answer.set()
    assert [future.result(30).result.name for future in waiting] == ["b", "c"]
    assert batcher.submit([]) == []


def test_a_failure_reaches_its_requests_only(model, batcher):
    model.may_answer.set()
    failing, = batcher.submit(["fail"])
    with pytest.raises(RuntimeError, match="no memory"):
        failing.result(30)
    assert batcher.submit(["a"])[0].result(30).result.name == "a"


def test_closing_answers_what_waits(model, batcher):
    futures = batcher.submit(["a"]) + batcher.submit(["b", "c"])
    assert model.started.wait(30)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    model.may_answer.set()
    closing.join(30)
    assert not closing.is_alive() and all(future.done() for future in futures)
    with pytest.raises(Closed):
        batcher.submit(["d"])


def test_closing_waits_no_longer_than_it_is_told(model, batcher):
    running, = batcher.submit(["a"])
    assert model.started.wait(30)
    waiting = batcher.submit(["b", "c"])
    assert not batcher.close(0.01)
    for future in waiting:
        with pytest.raises(Closed):
            future.result(30)
    model.may_answer.set()
    assert running.result(30).result.name == "a" and batcher.close(30)

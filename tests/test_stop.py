"""A training's stop signal: noted once, with the exit code that a shell gives for it."""

import os
import signal

import pytest

from darknet_face.training.stop import StopSignal


@pytest.fixture
def stop():
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    yield StopSignal()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_a_second_would_end_the_process(stop, number):
    assert not stop.is_due
    os.kill(os.getpid(), number)
    assert stop.is_due and stop.number == number
    assert signal.getsignal(number) == signal.SIG_DFL
    with pytest.raises(SystemExit) as ended:
        stop.exit()
    assert ended.value.code == 128 + number

"""docs/journeys.md, and the program that takes its journeys."""

import importlib.util
import os
import time

import pytest

from darknet_face.console import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location(
        "journeys", os.path.join(ROOT, "docs", "journeys.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def journeys(program):
    with open(program.PAGE, encoding="utf-8") as stream:
        return program.read_journeys(stream.read())


def test_the_installation_is_that_of_the_readme(journeys):
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as stream:
        shown = [line.partition("   #")[0].strip() for line in stream]
    for command in journeys["Install"]:
        assert command in shown


def test_every_journey_has_commands_and_a_row(program, journeys):
    with open(program.PAGE, encoding="utf-8") as stream:
        text = stream.read()
    for title, commands in journeys.items():
        assert commands
        assert "| {} | {} |".format(title, len(commands)) in text


def test_commands_share_a_shell_and_nothing_is_left_running(program, tmp_path):
    program.run(["name=made", "(trap 'touch ended' TERM; touch begun; sleep 600 & wait) &",
                 "until [ -e begun ]; do sleep 0.1; done", "touch $name"], str(tmp_path))
    assert (tmp_path / "made").exists()
    until = time.monotonic() + 60
    while not (tmp_path / "ended").exists():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_command_that_fails_ends_the_journey(program, tmp_path):
    with pytest.raises(UserError, match="exit code 3"):
        program.run(["(exit 3)", "touch late"], str(tmp_path))
    assert not (tmp_path / "late").exists()


def test_the_table_gets_the_times(program, journeys, tmp_path, monkeypatch):
    page = tmp_path / "journeys.md"
    with open(program.PAGE, encoding="utf-8") as stream:
        page.write_text(stream.read())
    monkeypatch.setattr(program, "PAGE", str(page))
    program.write_table({title: 83.4 for title in journeys})
    program.write_table({"Install": 59.6})
    text = page.read_text()
    assert text.count(" | 1 min 23 s |\n") == len(journeys) - 1
    assert "| Install | 3 | 1 min 0 s |\n| One photograph | 1 | 1 min 23 s |\n" in text
    assert program.read_journeys(text) == journeys

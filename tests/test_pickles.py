"""Lists of strings read from pickles of every kind, and hostile pickles refused at once."""

import argparse
import contextlib
import io
import pathlib
import pickle
import pickletools
import tracemalloc

import numpy as np
import pytest

from darknet_face.console import UserError
from darknet_face.images.file_lists import load_list
from darknet_face.images.pickles import parse_names

NAMES = ["a.jpg", "b/ü 1.png", "/absolute/c.jpg", "a.jpg", "x" * 300 + ".png"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("names", [NAMES, ["one"], [], ["n{}".format(i) for i in range(2500)]])
def test_every_protocol(names, protocol):
    assert parse_names(pickle.dumps(names, protocol)) == names
    assert parse_names(pickletools.optimize(pickle.dumps(names, protocol))) == names


def test_protocol_5():
    """Python 3.7 does not write it; the instructions for strings are those of protocol 4."""
    content = pickle.dumps(NAMES, 4)
    assert content[:2] == b"\x80\x04"
    assert parse_names(b"\x80\x05" + content[2:]) == NAMES


@pytest.mark.parametrize("content", [
    # Python 2.7, pickle and cPickle: ["a.jpg", "\xc3\xbc.jpg", u"\xfc.jpg", "a.jpg"].
    b"(lp0\nS'a.jpg'\np1\naS'\\xc3\\xbc.jpg'\np2\naV\xfc.jpg\np3\nag1\na.",
    b"(lp1\nS'a.jpg'\np2\naS'\\xc3\\xbc.jpg'\np3\naV\xfc.jpg\np4\nag2\na.",
    b"]q\x00(U\x05a.jpgq\x01U\x06\xc3\xbc.jpgq\x02X\x06\x00\x00\x00\xc3\xbc.jpgq\x03h\x01e.",
    b"\x80\x02]q\x01(U\x05a.jpgq\x02U\x06\xc3\xbc.jpgq\x03X\x06\x00\x00\x00\xc3\xbc.jpgq\x04h\x02e.",
    b"\x80\x02](T\x05\x00\x00\x00a.jpgU\x06\xc3\xbc.jpgU\x06\xc3\xbc.jpgU\x05a.jpge.",
])
def test_python_2_in_utf_8(content):
    assert parse_names(content) == ["a.jpg", "ü.jpg", "ü.jpg", "a.jpg"]


def test_bytes_that_are_not_utf_8_remain_file_names():
    assert parse_names(b"]U\x05\xfc.jpga.") == ["\udcfc.jpg"]
    names = ["\udcfc.jpg"]
    assert parse_names(pickle.dumps(names, 2)) == names


def nested_tuples(depth):
    """``(x, x)`` of ``(y, y)`` of ...: hashing the outermost takes 2 ** depth steps."""
    content = b"\x80\x02})"
    for _ in range(depth):
        content += b"2\x86"
    return content + b"K\x01s."


@pytest.mark.parametrize("content", [
    nested_tuples(60),
    pickle.dumps([["a"]]), pickle.dumps([b"a"]), pickle.dumps(("a",)), pickle.dumps("a"),
    pickle.dumps(["a", 1]), pickle.dumps([None]), pickle.dumps({"a": "b"}), pickle.dumps({"a"}),
    b"]q\x00h\x00a.",  # a list in itself
    b"](](](e.", b"(((.", b"]((e.", b"]e.", b"a.", b".", b"h\x00.", b"g99\n.", b"gx\n.", b"p\n.",
    b"Va\n.", b"]Va", b"]S'a\na.", b"]S'\\x'\na.", b"S'", b"\x80\x06].", b"\x80", b"\x95\0.",
    b"]X\xff\xff\xff\xffa.", b"]\x8d" + b"\xff" * 8 + b"a.", b"]\x8c\x01\xffa.",
    b"]\x94\x94\x94.", b"]\x8c\x01a.", b"\x00" * 100, bytes(range(256)),
])
def test_what_is_not_a_list_of_strings(content):
    with pytest.raises(ValueError):
        parse_names(content)


@pytest.mark.parametrize("opcode", [b"(", b"]", b"\x94", b"\x8c\x00", b"]\x94", b"]0"])
def test_memory_is_bounded(opcode):
    content = b"]" + opcode * 40000 + b"."
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            parse_names(content)
        assert tracemalloc.get_traced_memory()[1] < 30 * len(content)
    finally:
        tracemalloc.stop()


def test_every_single_damage_is_a_list_or_one_error():
    """Each byte of a pickle replaced by each of some others."""
    for protocol in range(5):
        content = pickle.dumps(["a.jpg", "b.jpg"], protocol)
        for place in range(len(content)):
            for value in b"\x00\x01.(]e\x94\xffq2}":
                mutant = content[:place] + bytes([value]) + content[place + 1:]
                with contextlib.suppress(ValueError):
                    assert all(isinstance(name, str) for name in parse_names(mutant))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("found, kind", [
    (("a.jpg", "b.jpg"), "a tuple"), (tuple(NAMES), "a tuple"), (np.array(NAMES), "a NumPy array"),
    ([np.str_("a.jpg")], "NumPy"), ([pathlib.PurePosixPath("a.jpg")], "pathlib paths"),
    ({"a.jpg": 1}, "a dictionary"), ({"a.jpg"}, "a set"), ([b"a.jpg"], "bytes"),
    ([1, 2], "numbers"), ([None], "None"), ([["a"], ["b"]], "more than one list"),
    ([argparse.Namespace()], "objects of "), ("a.jpg", "not a list of strings")])
def test_what_was_found_instead(found, kind, protocol):
    with pytest.raises(ValueError, match=kind):
        parse_names(pickle.dumps(found, protocol))


@pytest.mark.parametrize("text", ["a.jpg\nb/ü 1.png\n", "\ufeffa.jpg\r\nb.jpg\r\n", "one.png",
                                  "/data/faces/000001.jpg\n" * 200])
def test_a_text_file_is_named(tmp_path, text):
    path = tmp_path / "list.pickle"
    path.write_bytes(text.encode("utf-8"))
    with pytest.raises(UserError, match=r"it is a text file\); write it by pickle.dump\("):
        load_list(str(path))


@pytest.mark.parametrize("content", [
    b"]r\xff\xff\xff\x7f.", b"]p2000000000\n.", b"]p" + b"9" * 100000 + b"\n.",
    b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R.", b"]\x80\x02.",
    pickle.dumps(["a"] * 3)[:-1] + b"0."])
def test_nothing_runs_and_nothing_is_set_aside(content):
    """A reference stored at a great number would take memory for all below it."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            parse_names(content)
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()


def test_a_hostile_list_is_one_line(tmp_path):
    path = tmp_path / "list.pickle"
    path.write_bytes(nested_tuples(60))
    with pytest.raises(UserError, match="list.pickle: not a pickled list of file names"):
        load_list(str(path))


def test_it_needs_no_more_than_the_file():
    """The same list as the standard library's reader gives, for a file written in pieces."""
    stream = io.BytesIO()
    pickle.Pickler(stream, 4).dump(NAMES * 500)
    assert parse_names(stream.getvalue()) == pickle.loads(stream.getvalue())

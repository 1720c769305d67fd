"""File lists: what they may be read from, names in text, and how splits are compared."""

import io
import os

import pytest
from PIL import Image

from darknet_face.console import UserError
from darknet_face.images.file_lists import (
    LISTS,
    Split,
    check_disjoint,
    load_list,
    read_names,
    save_list,
    save_lists,
)


@pytest.mark.parametrize("content", [
    "a b.jpg\n ü.png \nc.jpg", "\ufeffa b.jpg\n ü.png \nc.jpg\n", "a b.jpg\r\n ü.png \r\nc.jpg\r\n",
    "\ufeffa b.jpg\r\n\r\n ü.png \r\n\nc.jpg"])
def test_names_in_text(content):
    stream = io.BytesIO(content.encode("utf-8"))
    assert [os.fsencode(name).decode("utf-8") for name in read_names(stream)] == [
        "a b.jpg", " ü.png ", "c.jpg"]


def test_a_line_without_an_end_is_no_name():
    assert list(read_names(io.BytesIO(b"a" * 5000 + b"\nb"))) == ["a" * 5000, "b"]
    with open("/dev/zero", "rb") as stream:
        with pytest.raises(UserError, match="line 1 of the list has 65,536 bytes or more"):
            list(read_names(stream))


def test_only_a_regular_file_is_a_list(tmp_path):
    pipe = str(tmp_path / "list.pickle")
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="list.pickle: not a regular file"):
        load_list(pipe)  # must not wait for a writer
    with pytest.raises(UserError, match="Is a directory"):
        load_list(str(tmp_path))
    with pytest.raises(UserError, match="device: not a regular file"):
        os.symlink("/dev/zero", str(tmp_path / "device"))
        load_list(str(tmp_path / "device"))


def test_a_huge_list_is_refused_unread(tmp_path):
    path = str(tmp_path / "list.pickle")
    with open(path, "wb") as stream:
        stream.truncate(10 ** 12)  # sparse: takes no room
    with pytest.raises(UserError, match="larger than"):
        load_list(path)


def test_lists_of_a_class_are_all_written_or_none(tmp_path):
    data = str(tmp_path)
    kept = {"train": [data + "/a"], "val": ["/elsewhere/b"], "test": []}
    with pytest.raises(UserError, match="test split.*add images"):
        save_lists(kept, data)
    assert os.listdir(data) == []
    save_lists(dict(kept, test=["/c"]), data, class_index=1)
    assert {name: load_list(os.path.join(data, name)) for name in os.listdir(data)} == {
        LISTS["train"][1]: ["a"], LISTS["val"][1]: ["/elsewhere/b"], LISTS["test"][1]: ["/c"]}


def test_empty_files_are_not_one_picture(tmp_path):
    paths = [str(tmp_path / name) for name in "abcd"]
    same = io.BytesIO()
    Image.new("RGB", (4, 4)).save(same, "PNG")
    for path, content in zip(paths, (b"", b"", same.getvalue(), same.getvalue())):
        with open(path, "wb") as stream:
            stream.write(content)
    check_disjoint({"train": Split((paths[0],), ()), "test": Split((paths[1],), ())})
    with pytest.raises(UserError, match="is the same image as"):
        check_disjoint({"train": Split((paths[2],), ()), "test": Split((), (paths[3],))})


def test_names_with_line_breaks_are_shown_escaped(tmp_path, capsys):
    """A name that ends in a line break looks like one that is there."""
    from darknet_face.console import warn

    path = str(tmp_path / "list.pickle")
    save_list(path, ["a.jpg\n"])
    (name,) = load_list(path)
    warn("{}: no such file".format(name))
    assert "a.jpg\\n: no such file" in capsys.readouterr().err

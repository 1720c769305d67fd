"""Seeded mutations of files: of their bytes, their text, or their structure under right checksums.

A mutation takes the content of a valid file and a ``random.Random``, and returns other content.
"""

import json
import re
import struct

MAX_BYTES = 8 * 1000 * 1000  # a mutated file is cut off here

_INTEGERS = (0, 1, 2, 3, 127, 128, 255, 256, 32767, 65535, 65536, (1 << 20) + 1, (1 << 31) - 1,
             1 << 31, (1 << 32) - 1, 1 << 40, 1 << 60, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_FLOATS = (float("nan"), float("inf"), float("-inf"), 1e38, -1.0, 0.0, 5e-324, 1e308)
_TEXTS = ("0", "-1", "1e400", "-1e400", "NaN", "Infinity", "1e38", "0.5", "9" * 25, "9" * 5000,
          "\u0661", "\u00b2", "true", "null", "[]", "{}", '""', '"', "'", ",", "\n", "\r\n", "\r",
          "\0", "\x1b[2J", "\ufeff", "\u202e", "..", "/", "../" * 9, "/etc/passwd", "a" * 5000,
          "[" * 3000, "%s", "{0}", "=1+1", " ", "\t")


def mutate_bytes(content, rng, others=()):
    """Change the bytes of a file, one to three times.

    Parameters
    ----------
    content : bytes
    rng : random.Random
    others : sequence of bytes
        Files of the same kind, of which pieces may be taken.

    Returns
    -------
    bytes
    """
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(_BYTE_MUTATIONS)(content, rng, others)[:MAX_BYTES]
    return content


def _piece(content, rng, longest=4096):
    """A random piece of some content: its begin and end."""
    begin = rng.randrange(len(content) + 1)
    return begin, min(len(content), begin + int(longest ** rng.random()))


def _place(content, rng):
    """A random place; half of the time near the begin, where headers are."""
    nearby = len(content) if rng.random() < 0.5 else min(len(content), 256)
    return rng.randrange(nearby + 1)


def _overwrite(content, place, piece):
    return content[:place] + piece + content[place + len(piece):]


def _flip_bits(content, rng, _):
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 4, 40)) if content else 0):
        changed[min(_place(content, rng), len(content) - 1)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(content, rng, _):
    return content[:rng.randrange(len(content) + 1)]


def _delete(content, rng, _):
    begin, end = _piece(content, rng)
    return content[:begin] + content[end:]


def _repeat(content, rng, _):
    begin, end = _piece(content, rng)
    return content[:end] + content[begin:end] * rng.choice((1, 2, 10, 1000)) + content[end:]


def _splice(content, rng, others):
    other = rng.choice(list(others) or [content])
    begin, end = _piece(other, rng, len(other) + 2)
    place = _place(content, rng)
    return content[:place] + other[begin:end] + content[rng.choice((place, end)):]


def _insert(content, rng, _):
    place = _place(content, rng)
    piece = bytes(rng.randrange(256) for _ in range(rng.choice((1, 2, 8, 100))))
    return content[:place] + piece + content[place:]


def _fill(content, rng, _):
    begin, end = _piece(content, rng)
    return content[:begin] + rng.choice((b"\0", b"\xff")) * (end - begin) + content[end:]


def _integer(content, rng, _):
    """Overwrite a number, such as a length, in any of the usual sizes and byte orders."""
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice(_INTEGERS) % (1 << 8 * size)
    return _overwrite(content, _place(content, rng),
                      value.to_bytes(size, rng.choice(("little", "big"))))


def _variable_length(content, rng, _):
    """Insert a protobuf's or a LevelDB's number."""
    place = _place(content, rng)
    piece = rng.choice((b"\xff" * 9 + b"\x01", b"\xff" * 4 + b"\x0f", b"\xff" * 12, b"\x80\x01"))
    return content[:place] + piece + content[place + rng.choice((0, len(piece))):]


def _float(content, rng, _):
    piece = struct.pack(rng.choice(("<d", ">d")), rng.choice(_FLOATS))
    if rng.random() < 0.7:
        piece = {0: b"\0\0\xc0\x7f", 1: b"\0\0\x80\x7f", 2: b"\xff\xff\x7f\x7f",
                 3: b"\0\0\x80\xbf"}[rng.randrange(4)]
    return _overwrite(content, _place(content, rng) // 4 * 4, piece)


_BYTE_MUTATIONS = (_flip_bits, _flip_bits, _truncate, _delete, _repeat, _splice, _insert, _fill,
                   _integer, _integer, _variable_length, _float)


def mutate_text(content, rng, others=()):
    """Change a text: its numbers, words and lines; now and then its bytes."""
    if rng.random() < 0.25:
        return mutate_bytes(content, rng, others)
    text = content.decode("utf-8", "surrogateescape")
    for _ in range(rng.choice((1, 1, 2))):
        tokens = list(re.finditer(r"[-+.\w]+", text))
        choice = rng.randrange(5)
        if choice < 3 and tokens:
            token = rng.choice(tokens)
            text = text[:token.start()] + rng.choice(_TEXTS) + text[token.end():]
        elif choice == 3:
            place = rng.randrange(len(text) + 1)
            text = text[:place] + rng.choice(_TEXTS) + text[place:]
        else:
            lines = text.splitlines(True)
            for _ in range(rng.choice((1, 3))):
                lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines or ["\n"]))
            text = "".join(lines)
    return text.encode("utf-8", "surrogateescape")[:MAX_BYTES]


def mutate_json(content, rng, others=()):
    """Put another value somewhere into a JSON; half of the time change its text instead."""
    if rng.random() < 0.4:
        return mutate_text(content, rng, others)
    root = [json.loads(content.decode("utf-8"))]
    places = list(_json_places(root))
    for _ in range(rng.choice((1, 1, 2))):
        container, key = rng.choice(places)
        if isinstance(container, dict) and rng.random() < 0.2:
            container.pop(key, None)
        elif isinstance(container, dict) or key < len(container):
            container[key] = rng.choice((
                None, True, 0, -1, 1, 1 << 53, 10 ** 30, 10 ** 400, 0.5, 1e38, -1e308, "", "x",
                "\ud800", "a\nb", [], {}, [[]], [1] * 1000, 320000, 64, "../../x",
                float("nan"), float("inf")))
    return json.dumps(root[0]).encode("utf-8")


def _json_places(value):
    """Every place of a value within a tree of lists and dicts: its container and key."""
    items = value.items() if isinstance(value, dict) else (
        enumerate(value) if isinstance(value, list) else ())
    for key, each in list(items):
        yield value, key
        yield from _json_places(each)


def mutate_message(message, rng):
    """Change some fields of a protobuf message, in place."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        parent, field = rng.choice(list(_fields(message)) or [(None, None)])
        if parent is not None:
            _change_field(parent, field, rng)


def _fields(message):
    for field, value in message.ListFields():
        yield message, field
        if field.message_type and _is_map(field):
            for each in value.values():
                if hasattr(each, "ListFields"):
                    yield from _fields(each)
        elif field.message_type:
            for each in value if _is_repeated(field) else (value,):
                yield from _fields(each)


def _is_repeated(field):
    if hasattr(field, "is_repeated"):  # newer protobuf
        return field.is_repeated
    return field.label == field.LABEL_REPEATED


def _is_map(field):
    return bool(field.message_type) and field.message_type.GetOptions().map_entry


def _change_field(message, field, rng):
    value = getattr(message, field.name)
    if _is_map(field):
        keys = sorted(value)
        if keys:
            del value[rng.choice(keys)]
    elif field.message_type:
        if _is_repeated(field):
            _change_list_of_messages(value, rng)
        else:
            message.ClearField(field.name)
    elif _is_repeated(field):
        items = list(value)
        items[rng.randrange(len(items))] = _other_value(field, items[0], rng)
        _set_or_leave(message, field, items * rng.choice((1, 1, 1, 2)))
    else:
        _set_or_leave(message, field, _other_value(field, value, rng))


def _change_list_of_messages(items, rng):
    place = rng.randrange(len(items))
    if rng.random() < 0.5:
        del items[place]
    elif len(items) < 1000:
        items.add().CopyFrom(items[place])


def _other_value(field, value, rng):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((rng.choice(_INTEGERS), -1, -2, value + 1, -value))
    if isinstance(value, float):
        return rng.choice(_FLOATS)
    if isinstance(value, bytes):
        return mutate_bytes(value, rng)
    return rng.choice(("", "x", value + "x", "input", "^input", value + ":1", "WriteFile", "Const",
                       "\0", "a" * 300))


def _set_or_leave(message, field, value):
    """Set a field; a number beyond its range leaves it as it was."""
    try:
        if _is_repeated(field):
            del getattr(message, field.name)[:]
            getattr(message, field.name).extend(value)
        else:
            setattr(message, field.name, value)
    except (ValueError, TypeError):
        pass

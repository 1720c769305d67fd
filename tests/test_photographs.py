"""Whole photographs: groups by the widest face, and rates counted by hand."""

import pytest

from evaluation.photographs import Picture, format_rows, group_of, summarise


@pytest.mark.parametrize("share, group", [
    (0.03, None), (0.05, None), (0.051, "5 to 10"), (0.1, "5 to 10"), (0.25, "20 to 30"),
    (0.8, "50 to 100"), (1.0, "50 to 100")])
def test_groups(share, group):
    found = group_of(share)
    assert found is None if group is None else group in found


def test_shares_at_a_rate_of_false_positives():
    """At 1 % of 200 face-free pictures two may score above the threshold."""
    scores = [(Picture("n", "cat", False), [float(number), float(number) + 5])
              for number in range(200)]
    scores += [(Picture("f", "celeba", True), [value, value + 5])
               for value in (100.0, 197.5, 198.0, 300.0)]
    rows = summarise(scores, (1, 2))
    assert [(row["zooms"], row["rate"]) for row in rows] == [
        ([1], 0.01), ([1], 0.001), ([1, 2], 0.01), ([1, 2], 0.001)]
    group, = rows[0]["groups"]
    assert group["pictures"] == 4 and group["found"] == 3, "197.5, 198 and 300 are above 197"
    assert rows[2]["groups"][0]["found"] == 3
    assert rows[1]["groups"][0]["found"] == 1, "none of 200 may be above: 199 is the bound"
    text = format_rows(rows)
    assert "celeba" in text and "75.0 %" in text

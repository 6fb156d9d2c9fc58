from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.data.label_cells import CellError, join_labels, looks_joined, recognise_separator, split_cell

_SIGNS = st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("|;,[](){}'\"\\ \n\t"))
_NAMES = st.text(_SIGNS, min_size=1, max_size=6)


@settings(max_examples=300)
@given(st.text(_SIGNS, max_size=30), st.sampled_from(["|", ";", ",", "", "; "]))
def test_any_cell_is_split_or_refused(cell, separator):
    try:
        labels = split_cell(cell, separator)
    except CellError:
        assert cell.strip()[0] in "[({"  # only what looks like a list can be none
        return
    names = [label for label in labels if isinstance(label, str)]
    assert all(name in cell or "\\" in cell for name in names)  # nothing but an escape is rewritten
    if cell.strip()[:1] not in ("[", "(", "{"):
        kept = cell.strip().replace(separator, "") if separator else cell
        assert "".join("".join(names).split()) == "".join(kept.split())  # and nothing is lost


@settings(max_examples=300)
@given(st.lists(st.lists(_NAMES, max_size=4), min_size=1, max_size=6), st.sampled_from(["|", ";", "; ", ","]))
def test_joined_labels_are_split_again_whatever_is_recognised(rows, separator):
    cells = [join_labels(row, separator) for row in rows]
    recognised = recognise_separator(cells) or separator
    several = any(len(row) > 1 and cell == separator.join(row) for row, cell in zip(rows, cells, strict=True))
    if several:
        assert recognised in (separator, separator.strip())
    assert [split_cell(cell, recognised) for cell in cells] == rows


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([], None),
        (["", "['a', 'b']"], None),
        (["a | b"] + ["c"] * 49, "|"),
        (["a | b"] + ["c"] * 200, None),  # too few to be sure
        (["a; b|c", "d; e"], ";"),
        (["1,234", "5,678"], None),
    ],
)
def test_recognised_separators(cells, expected):
    assert recognise_separator(cells) == expected


def test_parts_that_occur_on_their_own():
    assert looks_joined(["a, b", "b, a"], ",")
    assert not looks_joined(["Bach, Johann", "Händel, Georg", "Verdi, Giuseppe"], ",")
    assert not looks_joined(["a", "b"], ",")


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("[ 4 20]", [4, 20]), ("[4]", [4]), ("[10\n -2]", [10, -2]), ("['a' 'b c']", ["a", "b c"]), ("[]", [])],
)
def test_lists_as_numpy_prints_them(cell, expected):
    assert split_cell(cell, "|") == expected


def test_a_shortened_list_is_no_list():
    with pytest.raises(CellError, match="numpy printed it shortened"):
        split_cell("[ 1  2 ... 8  9]", "|")

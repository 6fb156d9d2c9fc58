from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.data.label_cells import CellError, join_labels, looks_joined, recognise_separator, split_cell

_SIGNS = st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("|;,\uff1b؛\uff0c、،[](){}'\"\\ \n\t"))
_NAMES = st.text(_SIGNS, min_size=1, max_size=6)


@settings(max_examples=300)
@given(st.text(_SIGNS, max_size=30), st.sampled_from(["|", ";", ",", "", "; ", "\uff1b", "、"]))
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
@given(
    st.lists(st.lists(_NAMES, max_size=4), min_size=1, max_size=6),
    st.sampled_from(["|", ";", "; ", ",", "\uff1b", "؛", "\uff0c", "、", "،"]),
)
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
        (["音乐\uff1b历史", "艺术"], "\uff1b"),
        (["موسيقى؛ تاريخ"], "؛"),
        (["音乐\uff0c历史", "历史\uff0c音乐", "历史"], "\uff0c"),
        (["音楽、歴史", "歴史、音楽"], "、"),
        (["فن، علم", "علم، فن"], "،"),
        (["音乐\uff0c历史", "艺术"], None),  # perhaps one name
        (["a\uff0cb, c", "b, a", "a, b", "a"], ","),
        (["[Anon.]; history [old]", "[s.n.]"], ";"),
        (["[s.n.; s.l.]"], None),
        (["[1, 2]; [3]"], None),
    ],
)
def test_recognised_separators(cells, expected):
    assert recognise_separator(cells) == expected


@pytest.mark.parametrize("comma", [",", "\uff0c", "、", "،"])
def test_a_single_name_with_a_comma_is_quoted(comma):
    name = f"a{comma} b"
    assert join_labels([name]) == f'["{name}"]'
    assert join_labels([name, "c"]) == f"{name}|c"
    assert join_labels([name, "c"], ",") == f'["{name}", "c"]'


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


@pytest.mark.parametrize(
    ("cell", "separator", "expected"),
    [
        ("[s.n.]", "|", ["[s.n.]"]),
        (" [Anon.] ", "", ["[Anon.]"]),
        ("[Anon.]; history [old]", ";", ["[Anon.]", "history [old]"]),
        ("[Anon.]; history [old]", "|", ["[Anon.]; history [old]"]),
        ("[Rome, Italy] : history [old, new]", "|", ["[Rome, Italy] : history [old, new]"]),
        ("[a] [b]", "|", ["[a] [b]"]),
        ("[s.n....]", "|", ["[s.n....]"]),
        ("[l\u2019auteur]", "|", ["[l\u2019auteur]"]),
    ],
)
def test_names_in_brackets(cell, separator, expected):
    assert split_cell(cell, separator) == expected


@pytest.mark.parametrize(
    "cell",
    [
        "[a, b]",
        "[a\uff0cb]",
        "[a; b]",
        "[a|b]",
        "[a\nb]",
        "[a, b], [c, d]",
        "[Anon.]; [a, b]",
        "[Anon.]; history [old]]",
        "[Anon.]; ['old]",
        '["a"; "b"]',
        "[“a” “b”]",
        "[19th century]",
        "[-1.5 2.]",
        "[Anon.]; [1.5 2]",
        "[True False]",
        "[None]",
        "[nan 1.5]",
        "[a ... z]",
        "[...]",
        "[[a]]",
        "[(a)]",
        "[{a: 1}]",
        "[<NA>]",
        "[array([1]) array([2])]",
        "[\u3000]",
        f"[nan {'1' * 5000}]",
    ],
)
def test_brackets_that_may_be_of_a_list(cell):
    with pytest.raises(CellError, match="look like a list but cannot be read as one"):
        split_cell(cell, ";")


def test_a_shortened_list_is_no_list():
    with pytest.raises(CellError, match="numpy printed it shortened"):
        split_cell("[ 1  2 ... 8  9]", "|")

"""How a copy of code is made: what is taken along, how imports are rewritten, and what stands in for the rest."""

from __future__ import annotations

import textwrap

import pytest

from xlgen_hf.hub.absent import absent
from xlgen_hf.hub.code_copy import copied_files
from xlgen_hf.version import __version__

SOURCES = {
    "model.py": """
        import json
        from typing import TYPE_CHECKING

        import sklearn.tree
        from torch import nn

        from .parts.first import (
            One,  # the first
            Two as Second,
        )
        from .parts.heavy import LIMIT, Heavy, Light
        from .parts.names import FILE
        from .parts.types import Hint

        if TYPE_CHECKING:
            from .parts.gone import Gone

        KEPT, SIZE = 1, 2
        Name: TypeAlias = str
        '''A text on it.'''
        # What is not used goes,
        # and what describes it.
        UNUSED = json.dumps(3)
        '''A text on it.'''


        def run(hint: Hint, module: nn.Module) -> Gone:
            '''Make things of parts.

            In this order,
            and no other.

            Args:
                hint: the first.

            Raises:
                Wrong: if there are none.
            '''
            # A comment.
            from .parts.heavy import make

            return make(One, Second, LIMIT, Heavy, Light, FILE, sklearn.tree, SIZE)


        # It trains.
        @decorated
        def fit():
            return json, Unknown
        """,
    "parts/first.py": """
        from ..errors import Wrong


        class One(Wrong):
            '''One.

            Attributes:
                left: what is left.

            Args:
                left: the same.
            '''

            def kept(self):
                '''What is kept.

                Returns:
                    What is used.
                '''
                return Tool().used()


        Two = One


        class Tool:
            def used(self):
                return self._part()

            def _part(self):
                return getattr(self, "by_name")

            def by_name(self):
                return self.left_out

            @property
            def unused(self):
                from .heavy import Kind

                return Kind

            def left_out(self):
                return UNUSED


        UNUSED = 3
        """,
    "parts/heavy.py": """
        from ..errors import LEVEL

        LIMIT = {"a": (LEVEL, 2)}
        Kind = LIMIT["a"]


        class Heavy:
            pass


        class Light:
            pass


        def make(*args):
            pass
        """,
    "parts/names.py": "FILE = 'names.json'\n",
    "parts/types.py": "class Hint:\n    pass\n",
    "errors.py": "LEVEL = 1\n\n\nclass Wrong(Exception):\n    pass\n",
    "bad.py": "from . import errors\n",
    "alias.py": "from .parts.heavy import Kind\n\nprint(Kind)\n",
}
START = '"""Text."""\n\nfrom __future__ import annotations\n\n'
LEFT_OUT = ("parts.first.Tool.left_out",)
FIRST = """
from .absent import absent

from .errors import Wrong


class One(Wrong):
    '''One.

    Attributes:
        left: what is left.
    '''

    def kept(self):
        '''What is kept.'''
        return Tool().used()


Two = One


class Tool:
    def used(self):
        return self._part()

    def _part(self):
        return getattr(self, "by_name")

    def by_name(self):
        return self.left_out

    unused = absent("unused")

    left_out = absent("left_out")
"""
COPIED = """
from .absent import absent

try:
    import sklearn.tree
except ImportError:
    sklearn = absent("sklearn", "scikit-learn")
from torch import nn

from .parts_first import One, Two as Second
from .parts_heavy import Light
LIMIT = {'a': (1, 2)}
Heavy = absent("Heavy")
FILE = 'names.json'

KEPT, SIZE = 1, 2


def run(hint: Hint, module: nn.Module) -> Gone:
    '''Make things of parts.

    In this order,
    and no other.
    '''
    # A comment.
    make = absent("make")

    return make(One, Second, LIMIT, Heavy, Light, FILE, sklearn.tree, SIZE)
"""


@pytest.fixture
def copy(tmp_path):
    """Copies a small package that has every kind of import."""
    root = tmp_path / "small"
    for name, source in SOURCES.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_text(START + textwrap.dedent(source).lstrip())
    return lambda entries: copied_files(
        root, entries, lambda name: name in LEFT_OUT or (name.startswith("parts.heavy.") and name[12:] != "Light")
    )


def test_imports_are_rewritten(copy):
    files = copy({"model": ["run"]})
    assert set(files) == {"absent.py", "errors.py", "model.py", "parts_first.py", "parts_heavy.py"}
    assert "LEVEL" not in files["errors.py"]
    assert "class Heavy" not in files["parts_heavy.py"]
    first, second, rest = files["model.py"].split("\n", 2)
    assert first.endswith("small/model.py")
    assert second.startswith(f"# Version {__version__};")
    assert rest == START + COPIED.lstrip()
    assert files["parts_first.py"].split("\n", 2)[2] == START + FIRST.lstrip()


def test_imports_that_a_flat_copy_cannot_have_are_refused(copy):
    with pytest.raises(ValueError, match=r"bad.py, line 5: transformers follows only imports of names out of modules"):
        copy({"bad": ["errors"]})
    with pytest.raises(ValueError, match=r"heavy.py: 'Kind' is left out of the copy and used there, and it is not a"):
        copy({"alias": ["Kind"]})


def test_stand_ins_say_what_to_install():
    heavy = absent("Heavy", "scikit-learn")
    assert not isinstance(3, heavy)
    for use in (heavy, lambda: heavy.load("x")):
        with pytest.raises(ImportError, match=r"Heavy is not part of the code .* run `pip install scikit-learn`"):
            use()
    with pytest.raises(ImportError, match="run `pip install xlgen-hf`"):
        absent("push_model")("x")

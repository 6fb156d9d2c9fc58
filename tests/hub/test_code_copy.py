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
        from .parts.types import Hint, Read

        if TYPE_CHECKING:
            from .parts.gone import Gone

        KEPT, SIZE = 1, 2
        Name: TypeAlias = str
        '''A text on it.'''
        # What is not used goes,
        # and what describes it.
        UNUSED = json.dumps(3)
        '''A text on it.'''


        @strict
        class Config:
            read: Read | None = None


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

            if __package__ == "small":
                register(run)
            return make(One, Second, LIMIT, Heavy, Light, FILE, sklearn.tree, SIZE)


        # -------------------------------------------------------- training


        # It trains.
        @decorated
        def fit():
            return json, Unknown
        """,
    "parts/first.py": """
        import logging

        from ..errors import Wrong
        from .last import LONGEST
        from .types import Hint

        logger = logging.getLogger(__name__)


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
                logger.info(Tool().used(), slow(), _Row.size)


        class _Row:
            '''What is private, and so are its methods.'''

            hint: Hint | None = None

            def size(self):
                '''Its size.'''
                return 1


        class _Empty:
            '''Nothing but a docstring.'''


        Two = One


        def slow():
            return LONGEST


        class Tool:
            def used(self):
                return self._part()

            def _part(self):
                '''What is private.'''
                return _Empty, getattr(self, "by_name")

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
    "parts/last.py": """
        import logging

        logger = logging.getLogger(__name__)
        LONGEST = len(__name__)


        def many():
            logger.info(LONGEST)
        """,
    "parts/names.py": "FILE = 'names.json'\n",
    "parts/other.py": "Two = len(__name__)\n",
    "parts/types.py": "class Hint:\n    pass\n\n\nclass Read:\n    pass\n",
    "errors.py": "LEVEL = 1\n\n\nclass Wrong(Exception):\n    pass\n",
    "bad.py": "from . import errors\n",
    "alias.py": "from .parts.heavy import Kind\n\nprint(Kind)\n",
}
START = '"""Text."""\n\nfrom __future__ import annotations\n\n'
LEFT_OUT = (
    "parts.first.Tool.left_out",
    "parts.first.slow",
    *(f"parts.heavy.{name}" for name in ("Heavy", "Kind", "LIMIT", "make")),
)
MODEL = """
from torch import nn

from .absent import absent
from .xlgen_parts import Light, One, Read, Two as Second

Heavy = absent("Heavy")


# ------------------------------------------------------------------------------------------------------ small/model.py
# Text.


try:
    import sklearn.tree
except ImportError:
    sklearn = absent("sklearn", "scikit-learn")

LIMIT = {'a': (1, 2)}
FILE = 'names.json'

KEPT, SIZE = 1, 2


@strict
class Config:
    read: Read | None = None


def run(hint: Hint, module: nn.Module) -> Gone:
    '''Make things of parts.'''
    # A comment.
    make = absent("make")

    return make(One, Second, LIMIT, Heavy, Light, FILE, sklearn.tree, SIZE)
"""
PARTS = """
import logging

from .absent import absent
from .errors import Wrong

slow = absent("slow")


# ------------------------------------------------------------------------------------------------ small/parts/first.py
# Text.


logger = logging.getLogger(__name__)


class One(Wrong):
    '''One.'''

    def kept(self):
        '''What is kept.'''
        logger.info(Tool().used(), slow(), _Row.size)


class _Row:
    hint: Hint | None = None

    def size(self):
        return 1


class _Empty:
    '''Nothing but a docstring.'''


Two = One


class Tool:
    def used(self):
        return self._part()

    def _part(self):
        return _Empty, getattr(self, "by_name")

    def by_name(self):
        return self.left_out

    unused, left_out = map(absent, ("unused", "left_out"))


# ------------------------------------------------------------------------------------------------ small/parts/heavy.py
# Text.


class Light:
    pass


# ------------------------------------------------------------------------------------------------- small/parts/last.py
# Text.


LONGEST = len(__name__)


def many():
    logger.info(LONGEST)


# ------------------------------------------------------------------------------------------------ small/parts/types.py
# Text.


class Read:
    pass
"""


@pytest.fixture
def copy(tmp_path):
    """Copies a small package that has every kind of import."""
    root = tmp_path / "small"
    for name, source in SOURCES.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_text(START + textwrap.dedent(source).lstrip())
    return lambda entries, left_out=LEFT_OUT: copied_files(root, entries, left_out)


def test_imports_are_rewritten(copy):
    files = copy({"model": ["Config", "run"], "parts.last": ["many"]})
    assert set(files) == {"absent.py", "errors.py", "model.py", "xlgen_parts.py"}
    assert "LEVEL" not in files["errors.py"]
    for name, place, expected in (("model.py", "model.py", MODEL), ("xlgen_parts.py", "parts", PARTS)):
        first, second, rest = files[name].split("\n", 2)
        assert first.endswith(f"small/{place}")
        assert second.startswith(f"# Version {__version__};")
        assert rest == "from __future__ import annotations\n" + expected


def test_names_that_two_modules_of_a_package_define_are_refused(copy):
    with pytest.raises(ValueError, match=r"other.py and .*first.py both define 'Two', and a copy .* Rename one\."):
        copy({"parts.other": ["Two"], "parts.first": ["Two"]})


def test_names_of_nothing_are_refused(copy):
    for name in ("parts.gone", "parts.first.Gone", "parts.first.Tool.gone", "gone"):
        with pytest.raises(ValueError, match=f"{name} is left out of the code for models, and there is no such thing"):
            copy({"model": ["run"]}, [*LEFT_OUT, name])
    assert "xlgen_parts.py" not in copy({"errors": ["Wrong"]}, ["parts"])


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

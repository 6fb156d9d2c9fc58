"""The card of a folder here: README.md, which a push writes again for the repository."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from ..errors import SaveError, XLGenError
from ..files.adapter_base import base_of, is_adapter
from ..files.atomic import atomic_path
from ..files.model_folder import PROCESSOR_FILE
from .card_pictures import PICTURES, draw_pictures, pictures_in
from .card_text import CARD_FILE, merge_cards
from .cards import adapter_card, index_card, model_card

__all__ = ["write_local_card"]

logger = logging.getLogger(__name__)


def write_local_card(folder: str | Path, *, draw: bool = True) -> None:
    """Write the card of a model, adapter, hybrid, index or label trees into its folder.

    What people wrote outside of the generated part stays. A card that cannot be read, merged or written is left as it
    is, with a warning: the command has done its work by then, and who was told that it failed would repeat it.

    Args:
        folder: the folder. The card calls it by its name, without the path to it.
        draw: draw the pictures of a model or adapter; otherwise those that are there stay.
    """
    folder = Path(folder)
    path, name = folder / CARD_FILE, folder.resolve().name
    if draw and (folder / PROCESSOR_FILE).is_file():
        try:
            _write_pictures(folder, draw_pictures(folder, name))
        except (OSError, SaveError) as err:  # such as a file called `images`
            logger.warning("The card goes without pictures: %s", err)
    try:
        before = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
        card = merge_cards(_card(folder, name), before)
        with atomic_path(path) as aside:
            aside.write_text(card, encoding="utf-8")
    except (OSError, XLGenError) as err:
        logger.warning("%s stays as it is: %s", path, err)


def _write_pictures(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Write pictures, and remove those of an earlier card that this one has not."""
    for path in PICTURES:
        if path not in pictures:
            (folder / path).unlink(missing_ok=True)
    for path, content in pictures.items():
        (folder / path).parent.mkdir(exist_ok=True)
        with atomic_path(folder / path) as aside:
            aside.write_bytes(content)


def _card(folder: Path, name: str) -> str:
    pictures = pictures_in(folder)
    if is_adapter(folder):
        return adapter_card(folder, name, base_model=Path(base_of(folder).name).name, pictures=pictures)
    if (folder / PROCESSOR_FILE).is_file():
        return model_card(folder, name, pictures=pictures)
    return index_card(folder, name)

"""The text of cards: data escaped for Markdown, and the generated part kept apart from what people wrote."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TypedDict

import jinja2
import yaml
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import yaml_dump

from ..errors import ConfigurationError
from ..files.resources import resource_folder

__all__ = [
    "BEGIN",
    "CARD_FILE",
    "END",
    "CardLabels",
    "compose_card",
    "escape",
    "label_card",
    "merge_cards",
    "render",
    "split_card",
]

CARD_FILE = "README.md"
BEGIN = "<!-- xlgen: generated from here. Each push writes this part again; text before and after it stays. -->"
END = "<!-- xlgen: generated up to here. -->"

_LONGEST = 300  # characters of a text from the data that a card shows
_YAML_BREAKS = re.compile("[\x85\u2028\u2029]")
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!~$^:@])")
_LINE_START = re.compile(r"^(\d*)([.)=-])(?=\s|-|=|$)")  # what begins a list or underlines a heading
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}
_GENERATED_KEYS = ("model-index", "configs", "dataset_info")  # metadata that a push replaces even by nothing
_LISTS = ("tags", "metrics", "datasets", "language")  # metadata that a push adds to
_VERSION_LINE = re.compile(r"### Framework versions|- PEFT [\w.+-]+")  # which peft adds to a template


def escape(value: object, longest: int = _LONGEST) -> str:
    """Show a text from the data in Markdown as it is, in a table too: one line, nothing of it markup.

    Args:
        value: anything with a `str`.
        longest: characters after which it is cut.
    """
    # Control and format characters go: some of them break lines, others turn the direction of what follows.
    line = " ".join("".join(c if unicodedata.category(c)[0] != "C" else " " for c in str(value)).split())
    if len(line) > longest:
        line = f"{line[:longest].rstrip()} …"
    line = "".join(_ENTITIES.get(character, character) for character in _SPECIAL.sub(r"\\\1", line))
    return _LINE_START.sub(r"\1\\\2", line)


def render(template: str, facts: Mapping[str, object]) -> str:
    """Fill a template of `hub_cards`.

    Args:
        template: its file name.
        facts: values by name. In the template, `cell` is the filter for text from data, `number` the one for numbers.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource_folder("hub_cards")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown, not HTML: the filter `cell` escapes
    )
    environment.filters.update(cell=escape, number=_number)
    text = environment.get_template(template).render(facts)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def compose_card(metadata: Mapping[str, object], title: str, generated: str) -> str:
    """Put a card together: metadata, a title that is a person's to change, and the generated part.

    Args:
        metadata: what the Hub reads; keys without a value are left out.
        title: heading of the card.
        generated: Markdown.
    """
    return _whole(metadata, f"# {escape(title)}\n\n{BEGIN}\n\n{generated}\n\n{END}\n")


class CardLabels(TypedDict):
    """What a user adds to the metadata of a card.

    Attributes:
        tags: tags.
        language: languages of the texts, as ISO codes.
    """

    tags: list[str]
    language: list[str]


def label_card(card: str, *, tags: Sequence[str], language: Sequence[str]) -> str:
    """Add to the metadata of a card; what is there stays.

    Args:
        card: the card.
        tags: see [`CardLabels`].
        language: see [`CardLabels`].

    Raises:
        ConfigurationError: if the card's metadata is no YAML.
    """
    added = {name: list(values) for name, values in (("tags", tags), ("language", language)) if values}
    if not added:
        return card
    metadata, body = split_card(card)
    return _whole(_merge_metadata(added, metadata), body)


def _whole(metadata: Mapping[str, object], body: str) -> str:
    known = {key: value for key, value in metadata.items() if value not in (None, [], {})}
    dumped = yaml_dump(known)
    if _YAML_BREAKS.search(dumped):  # PyYAML writes them as they are and reads them as ends of lines
        dumped = yaml_dump(known, allow_unicode=False)
    dumped = dumped.rstrip("\n")  # not of all white space, which may be text
    return f"---\n{dumped}\n---\n\n{body.lstrip()}"


def split_card(card: str) -> tuple[dict[str, object], str]:
    """Metadata and body of a card.

    Raises:
        ConfigurationError: if the metadata is no YAML object.
    """
    match = REGEX_YAML_BLOCK.search(card)
    if match is None:
        return {}, card
    try:
        metadata = yaml.safe_load(match.group(2))
    except yaml.YAMLError as err:
        raise ConfigurationError(
            f"The metadata at the top of {CARD_FILE} is no YAML: {err}. Repair it in the repository, then push again."
        ) from err
    if not isinstance(metadata, (dict, type(None))):
        raise ConfigurationError(
            f"The metadata at the top of {CARD_FILE} is a {type(metadata).__name__}; `key: value` lines are expected."
        )
    return metadata or {}, card[match.end() :]


def merge_cards(new: str, old: str | None) -> str:
    """Put the generated part and metadata of a new card into an old one.

    Args:
        new: a card of `compose_card`.
        old: the card so far, None if there is none. All text outside its generated part stays, and so do its metadata
            where the new card says nothing. Where it has no generated part, that goes before its text.

    Raises:
        ConfigurationError: if the old card's metadata is no YAML, or its markers are damaged.
    """
    if old is None or not old.strip() or _is_template(old):
        return new
    new_metadata, new_body = split_card(new)
    old_metadata, old_body = split_card(old.replace("\r\n", "\n"))
    generated = new_body[new_body.index(BEGIN) : new_body.index(END) + len(END)]
    if (old_body.count(BEGIN), old_body.count(END)) == (0, 0):
        body = f"{generated}\n\n{old_body.lstrip()}"
    else:
        start, end = old_body.find(BEGIN), old_body.find(END)
        if (old_body.count(BEGIN), old_body.count(END)) != (1, 1) or start > end:
            raise ConfigurationError(
                f"{CARD_FILE} must have the line {BEGIN!r} once, and {END!r} once after it. Repair the two lines, or "
                "delete both; then push again."
            )
        body = old_body[:start] + generated + old_body[end + len(END) :]
    return _whole(_merge_metadata(new_metadata, old_metadata), body)


def _is_template(card: str) -> bool:
    """Whether a card is one that another library leaves in a folder, in which nobody has written anything."""
    known = _template_lines()
    lines = [line.strip() for line in split_card(card)[1].splitlines()]
    return any(lines) and all(line in known or _VERSION_LINE.fullmatch(line) for line in lines)


@cache
def _template_lines() -> frozenset[str]:
    texts = (ModelCard.from_template(ModelCardData()).text, DatasetCard.from_template(DatasetCardData()).text)
    return frozenset(line.strip() for text in texts for line in text.splitlines())


def _merge_metadata(new: Mapping[str, object], old: Mapping[str, object]) -> dict[str, object]:
    merged: dict[str, object] = {key: value for key, value in old.items() if key not in _GENERATED_KEYS}
    for key, value in new.items():
        if key in _LISTS and key in merged:
            before, more = (x if isinstance(x, list) else [x] for x in (merged[key], value))
            value = list(dict.fromkeys([*before, *more]))
        merged[key] = value
    return merged

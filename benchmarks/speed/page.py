"""The page that shows the figures of `make_speed.py`."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_page"]

_ROWS = {
    ("authors", "train"): ("the authors' code: an epoch of BCL", "`XLGenTrainer`"),
    ("authors", "predict"): ("the authors' code: BCL generates with 5 beams", "`model.predict`"),
    ("train", None): ("`Seq2SeqTrainer` and `T5ForConditionalGeneration`: an epoch", "`XLGenTrainer`, base"),
    ("decode", None): ("`generate` with a `prefix_allowed_tokens_fn`, 5 beams", "`model.predict`, base"),
    ("limit", None): ("`generate` without any constraint, greedily", "`model.predict`, base, greedily"),
    ("embed", None): ("`SentenceTransformer.encode`", "`embed_texts`"),
}


def write_page(path: Path, content: dict) -> None:
    """Write the page.

    Args:
        path: the file.
        content: what `speed.json` holds.
    """
    about = content["about"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    text = (path.parent / "speed" / "template.md").read_text(encoding="utf-8")
    filled = text.replace("{table}", _table(content)).replace("{versions}", versions)
    filled = filled.replace("{shares}", _shares(content.get("shares", {})))
    for name in ("texts", "rounds", "python"):
        filled = filled.replace(f"{{{name}}}", str(about[name]))
    path.write_text(filled, encoding="utf-8")


def _table(content: dict) -> str:
    lines = ["| other | ours | texts | ratio: least, median, greatest | steps a batch |", "|---|---|---|---|---|"]
    for (name, part), (other, ours) in _ROWS.items():
        for kind, found in content.get(name, {}).items():
            one = found if part is None else found[part]
            ratio = ", ".join(f"{one[key]:.2f}" for key in ("least", "median", "greatest"))
            lines.append(f"| {other} | {ours} | {kind} | {ratio} | {one.get('steps', '')} |")
    return "\n".join(lines)


def _shares(found: dict) -> str:
    names = ("encoder", "decoder", "rest of forward", "backward", "optimizer", "outside", "products")
    lines = [f"| variant | texts | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for kind, variants in found.items():
        for variant, one in variants.items():
            lines.append(f"| {variant} | {kind} | {' | '.join(f'{100 * one[name]:.0f} %' for name in names)} |")
    return "\n".join(lines)

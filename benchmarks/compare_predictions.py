"""Compare what two runs of `record_predictions.sh` predict: rows with other labels, and how far scores are apart."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main(first: str, second: str) -> None:
    print("| predictions | rows | other order | other set | the first's labels lead | largest difference of a score |")
    print("|---|---|---|---|---|---|")
    for path in sorted(Path(first).glob("p_*.jsonl")):
        other = Path(second) / path.name
        if not other.is_file():
            print(f"| {path.stem} | missing in {second} | | | | |")
            continue
        pairs = list(zip(_rows(path), _rows(other), strict=True))
        same = [(one, two) for one, two in pairs if one["labels"] == two["labels"]]
        other_set = sum(set(one["labels"]) != set(two["labels"]) for one, two in pairs)
        leading = sum(one["labels"] == two["labels"][: len(one["labels"])] for one, two in pairs)
        gaps = [abs(a - b) for one, two in same for a, b in zip(one["scores"], two["scores"], strict=True)]
        worst = f"{max(gaps, default=0):.1e}"
        print(f"| {path.stem} | {len(pairs)} | {len(pairs) - len(same)} | {other_set} | {leading} | {worst} |")


if __name__ == "__main__":
    main(*sys.argv[1:])

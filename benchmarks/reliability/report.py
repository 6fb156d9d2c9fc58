"""`RELIABILITY.md` out of the results of all parts."""

from __future__ import annotations

import json
import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from xlgen_hf.version import __version__

_HEAD = """# Reliability

What happens to commands that are killed, that find no room on the disk, that run twice at once, and to what others
may put into files. Everything runs on tiny models made in memory, as real processes that run the real commands; what
is drawn by chance is drawn with a seed.

```bash
python benchmarks/reliability            # kills, full disks, threads and processes; as root, to mount small disks
python benchmarks/fuzz_folders.py --mutations 6000 --json benchmarks/reliability.json   # damaged model folders
python benchmarks/fuzz_rows.py --mutations 4000 --json benchmarks/reliability.json      # damaged files of rows
```

Seconds are those of two cores that did other work as well, in several runs while faults that were found were mended;
threads, `torchrun` and model folders were measured some commits before the rest. `reliability.json` has the results
that this page is made of (`python benchmarks/reliability --report` makes it again).
"""
_KILLS = """## Killed at any moment

`kill -9` at a random moment: half of them some time after the start, the others after some changes of what can be seen
of the output, so that they meet writes. Then the same command again, at once. *Half-written* counts JSON and
safetensors files of the output that are not whole after the kill; *processes* those of the command that run on after a
minute; *differences* the values and files of the repeated run's result that are not those of a run that nobody
disturbed (left out: times, what a result says of its run, and flags of the trainer that last for a step); *leftovers*
temporary files and locks in the end.
"""
_DISKS = """## Disks that are full

File systems in memory with less room than the command needs, by a random fraction. *Unclear* counts ends without the
exit code 1 or without one line that names the file and the reason; *half-written* and *leftovers* are counted before
there is more room, *failed* and *differences* are those of the same command afterwards.
"""
_WRITERS = """## Threads and processes
"""
_FUZZ = """## Damaged files

One file of a good folder, or of rows, is damaged: bytes, values in JSON, headers and tensors of safetensors, the file
missing or another one. A folder *predicts* and a file is *read*, or it is *refused* by an error that names it and says
why (*at predicting* where a text shows it first). A fault is any other exception, an error without a name, a crash, a
hang of a minute, or more than 3 GiB of memory.
"""


def write(results: Path, path: Path) -> None:
    """Write the page.

    Args:
        results: JSON of the parts that were run.
        path: the page.
    """
    parts = json.loads(results.read_text(encoding="utf-8"))
    sections = [_HEAD]
    makers = {"kills": (_KILLS, _table), "disks": (_DISKS, _table), "writers": (_WRITERS, _writers)}
    for name, (text, make) in makers.items():
        if name in parts:
            sections.append(f"{text}\n{make(parts[name]['counts'])}\n{_about(parts[name])}\n")
    damaged = {name: parts[name] for name in ("fuzz_folders", "fuzz_rows") if name in parts}
    if damaged:
        sections.append(f"{_FUZZ}\n{_damaged(damaged)}\n")
    path.write_text("\n".join(sections), encoding="utf-8")


def about_run() -> dict[str, str]:
    """What a part was run on, and when."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "tokenizers", "safetensors"))
    day = datetime.now(timezone.utc).date().isoformat()
    return {"date": day, "versions": f"xlgen-hf {__version__}, {packages}, Python {platform.python_version()}"}


def _about(part: dict[str, Any]) -> str:
    return f"{part['date']}, seed {part['seed']}, {part['seconds']} seconds; {part['versions']}."


def _table(counts: dict[str, dict[str, int]]) -> str:
    columns = list(next(iter(counts.values())))
    rows = [[name, *(one.get(column, 0) for column in columns)] for name, one in counts.items()]
    rows.append(["all", *(sum(one.get(column, 0) for one in counts.values()) for column in columns)])
    return _lines(["command", *columns], rows)


def _lines(header: list[str], rows: list[list[object]]) -> str:
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _writers(counts: dict[str, Any]) -> str:
    threads, shared, pair = counts["threads"], counts["two writers"], counts["torchrun"]
    wrong = [[name, threads["calls of each"], number] for name, number in threads["wrong"].items()]
    table = _lines(["20 threads", "calls", "other results than one thread, or errors"], wrong)
    second = ", ".join(f"`{name}`" for name, result in shared.items() if result == "refused")
    others = "".join(f" `{name}`: {result}." for name, result in shared.items() if result != "refused")
    same = "are the same" if pair["same evaluation"] else "differ"
    return (
        f"{table}\nThe same command started while it runs, into one output: the second is refused and names the "
        f"process that writes, the first ends well: {second}.{others}\n\n"
        "`torchrun --nproc_per_node 2 -m xlgen_hf train` beside one process with the same rows in a step: "
        f"{pair['points of the curves']} points of the curves of losses and scores, the largest difference is "
        f"{pair['largest difference']}; validation scores {same}.\n"
    )


def _damaged(parts: dict[str, dict[str, Any]]) -> str:
    told = []
    for name, part in parts.items():
        kinds = part["results"]
        rows = [[result, number] for result, number in kinds.items()] + [["fault", 0]] * ("fault" not in kinds)
        told.append(
            f"`{name}.py`, {part['mutations']} mutations:\n\n{_lines(['result', 'number'], rows)}\n{_about(part)}\n"
        )
    return "\n".join(told)

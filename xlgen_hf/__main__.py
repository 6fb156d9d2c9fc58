"""`python -m xlgen_hf` is the program `xlgen`."""

from __future__ import annotations

from .cli.main import run

if __name__ == "__main__":
    run()

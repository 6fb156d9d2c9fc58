"""Pictures: all that the package draws, in one style. They need matplotlib, the extra `plot`."""

from __future__ import annotations

"""Token level: which label may come next, search over decoder rows, teacher forcing."""

from __future__ import annotations

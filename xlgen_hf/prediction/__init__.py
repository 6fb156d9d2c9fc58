"""Label level: from texts to predicted label sets."""

from __future__ import annotations

"""Training: settings, collator, trainer, tuning, adapters and the retriever."""

from __future__ import annotations

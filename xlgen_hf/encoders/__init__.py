"""Checkpoints of encoders, and embeddings of texts."""

from __future__ import annotations

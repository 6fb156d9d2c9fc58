"""Retrieval of candidate labels by embeddings and by character n-grams."""

from __future__ import annotations

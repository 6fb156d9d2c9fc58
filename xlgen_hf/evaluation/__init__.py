"""Scores of predictions, and their plots."""

from __future__ import annotations

"""Pushing models, adapters, data sets and the metric to the Hub, with cards."""

from __future__ import annotations

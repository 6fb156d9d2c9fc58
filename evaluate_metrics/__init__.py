"""Metrics for the library evaluate, each in a folder that is loaded by its path or pushed to the Hub as a Space."""

from __future__ import annotations

"""Comparisons of systems: plan, runs, results, claims, report."""

from __future__ import annotations

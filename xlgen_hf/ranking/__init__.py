"""Scored candidate labels: fusion, calibration and decisions."""

from __future__ import annotations

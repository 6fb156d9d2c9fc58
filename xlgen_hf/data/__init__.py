"""Rows of text and labels: reading, formats, folders in published layouts, and what is made of rows."""

from __future__ import annotations

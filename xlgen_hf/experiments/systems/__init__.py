"""The systems that experiments compare, behind one registry."""

from __future__ import annotations

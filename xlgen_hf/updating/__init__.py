"""A model's folder that lives: documents and labels change without training, and changes can be undone."""

from __future__ import annotations

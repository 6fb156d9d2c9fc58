"""Reading and writing: JSON and tensors, atomic saves, resumable outputs, the files of a model folder."""

from __future__ import annotations

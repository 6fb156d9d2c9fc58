"""Labels: the label space, their tokens and trie, and their clusters."""

from __future__ import annotations

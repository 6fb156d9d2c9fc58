"""Parts of the model: backbone, conditioning, copying of candidates, output layer, adapters, loading and saving."""

from __future__ import annotations

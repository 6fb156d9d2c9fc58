"""A REST service: models behind HTTP, micro-batches, limits, reload without downtime, and Annif's interface.

`app` puts the parts together. A request passes `guard` (key, sizes), its routes (`native`, `annif`) read it into
`requests`, and the `batching` of its `models` answers it.
"""

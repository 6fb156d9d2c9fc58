"""Limits and times of a server; `xlgen serve` has an option for each of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..errors import ConfigurationError
from ..settings import check_values, setting

__all__ = ["ServingSettings"]

_WORK = "Work"
_LIMITS = "Limits"


@dataclass(frozen=True, kw_only=True)
class ServingSettings:
    """Limits and times of a server.

    Attributes:
        batch_size: texts that are predicted together, of one request or of several.
        parallel_batches: batches of a model that run at the same time on a CPU, each with its share of the threads.
        queue_size: texts that may wait for a model; further requests get 429.
        max_requests: requests that may be read and answered at the same time; further ones get 429.
        timeout: seconds that a request may take, reading and waiting included; then it gets 503.
        max_texts: texts of a request.
        max_characters: characters of a text.
        max_body_mb: megabytes (10^6 bytes) of a request's body.
        max_top_k: highest `top_k`, `min_labels` and `max_labels`, number of suggestions, and of candidates to score.
        max_beams: highest `num_beams` and `num_samples`, of which memory and time depend.
        reload_seconds: seconds between two looks at the folders of the models; 0 never looks.

    Raises:
        ConfigurationError: if a value is not allowed, or the queue has no room for one request.
    """

    batch_size: int = setting(
        64, help="Texts that are predicted together, of one or several requests.", minimum=1, group=_WORK
    )
    parallel_batches: int = setting(
        2,
        help="Batches of a model that run at the same time on a CPU, each with its share of the threads.",
        minimum=1,
        group=_WORK,
    )
    queue_size: int = setting(
        1024, help="Texts that may wait for a model; further requests get 429.", minimum=1, group=_LIMITS
    )
    max_requests: int = setting(
        128, help="Requests that are read and answered at the same time; further ones get 429.", minimum=1,
        group=_LIMITS,
    )  # fmt: skip
    timeout: float = setting(
        60.0, help="Seconds that a request may take, waiting included; then it gets 503.", above=0, group=_LIMITS
    )
    max_texts: int = setting(256, help="Maximum number of texts of a request.", minimum=1, group=_LIMITS)
    max_characters: int = setting(100_000, help="Maximum length of a text, in characters.", minimum=1, group=_LIMITS)
    max_body_mb: int = setting(4, help="Maximum size of a request's body, in megabytes.", minimum=1, group=_LIMITS)
    max_top_k: int = setting(
        100, help="Maximum number of labels that a request may ask for.", minimum=1, group=_LIMITS
    )
    max_beams: int = setting(20, help="Maximum of `num_beams` and `num_samples`.", minimum=1, group=_LIMITS)
    reload_seconds: float = setting(
        5.0,
        help="Seconds between two looks whether a model's folder changed; 0 never looks.",
        minimum=0,
        group=_WORK,
    )

    def __post_init__(self) -> None:
        """Check the values."""
        check_values(type(self), asdict(self))
        if self.max_texts > self.queue_size:
            raise ConfigurationError(
                f"max_texts={self.max_texts} is greater than queue_size={self.queue_size}; lower the one or raise the "
                "other."
            )

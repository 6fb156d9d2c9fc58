"""`push_to_hub` of models and processors: the options of transformers, and the one way to the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .commits import PushReport, TargetOptions
    from .push import PushOptions, Saves

__all__ = ["PushModelMixin", "PushProcessorMixin"]


class PushModelMixin:
    """Replaces the `push_to_hub` of transformers, which does not push label space and processor."""

    def push_to_hub(
        self: Saves,
        repo_id: str,
        *,
        processor: Saves | None = None,
        commit_message: str | None = None,
        commit_description: str | None = None,
        **options: Unpack[PushOptions],
    ) -> PushReport:
        """Put model, processor and card up in one commit.

        Args:
            repo_id: `owner/name`.
            processor: the model's processor.
            commit_message: message of the commit.
            commit_description: what the message has below its first line, or the text of the pull request.
            options: further options of `xlgen_hf.push_model`, those of transformers among them: `private`, `revision`,
                `token`, `create_pr`, `tags`, `max_shard_size`, `allow_patterns`, `ignore_patterns`, `dry_run`,
                `with_code`, `scores`, `dataset`, `language`, `license_id`.

        Returns:
            The files, the commit and its page.

        Raises:
            ConfigurationError: if there is no processor.
            HubError: if the Hub refuses or cannot be reached.
        """
        from .push import push_model  # with the Hub's client, which a model that only predicts does not need

        wanted: PushOptions = {
            **options,
            "message": commit_message or options.get("message"),
            "description": commit_description or options.get("description"),
        }
        return push_model(self, repo_id, processor=processor, **wanted)


class PushProcessorMixin:
    """Replaces the `push_to_hub` of transformers, which would put up a processor without a model."""

    def push_to_hub(
        self: Saves,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        tags: Sequence[str] | str | None = None,
        max_shard_size: int | str | None = None,
        **options: Unpack[TargetOptions],
    ) -> PushReport:
        """Put the processor's files into the repository of its model, in one commit.

        Args:
            repo_id: `owner/name` of a repository that holds an XLGen model; `model.push_to_hub` makes one.
            commit_message: message of the commit.
            commit_description: what the message has below its first line, or the text of the pull request.
            tags: further tags of the card.
            max_shard_size: of no effect, as in transformers: a processor has no weights.
            options: `private`, `revision`, `token`, `create_pr`, `allow_patterns`, `ignore_patterns`, `dry_run`.

        Returns:
            The files, the commit and its page.

        Raises:
            HubError: if the repository holds no model, or the Hub refuses or cannot be reached.
        """
        from .push import push_processor

        wanted: TargetOptions = {
            **options,
            "message": commit_message or options.get("message"),
            "description": commit_description or options.get("description"),
        }
        return push_processor(self, repo_id, tags=tags, **wanted)

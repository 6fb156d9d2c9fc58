"""`model.push_to_hub`: a model goes up with its processor, in one commit."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["PushModelMixin"]


class PushModelMixin:
    """Replaces the `push_to_hub` of transformers, which leaves label space and processor behind."""

    def push_to_hub(
        self, repo_id: str, *, processor: Any = None, commit_message: str | None = None, **options: Any
    ) -> Any:
        """Put model, processor and card up in one commit.

        Args:
            repo_id: `owner/name`.
            processor: the model's processor.
            commit_message: message of the commit.
            options: further options of `xlgen_hf.hub.push.push_model`: `private`, `revision`, `token`, `create_pr`,
                `dry_run`, `with_code`, `scores`, `dataset`, `license_id`.

        Returns:
            The `PushReport`: files, commit and page.

        Raises:
            ConfigurationError: if there is no processor.
            HubError: if the Hub refuses or cannot be reached.
        """
        # By name, because a repository with code holds this module and not the hub's, which uploading alone needs.
        push_model = import_module("xlgen_hf.hub.push").push_model
        return push_model(self, repo_id, processor=processor, message=commit_message, **options)

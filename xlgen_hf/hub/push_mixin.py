"""`model.push_to_hub`: a model goes up with its processor, in one commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .commits import PushReport
    from .push import PushOptions, Saves

__all__ = ["PushModelMixin"]


class PushModelMixin:
    """Replaces the `push_to_hub` of transformers, which does not push label space and processor."""

    def push_to_hub(
        self: Saves,
        repo_id: str,
        *,
        processor: Saves | None = None,
        commit_message: str | None = None,
        **options: Unpack[PushOptions],
    ) -> PushReport:
        """Put model, processor and card up in one commit.

        Args:
            repo_id: `owner/name`.
            processor: the model's processor.
            commit_message: message of the commit.
            options: further options of `xlgen_hf.push_model`: `private`, `revision`, `token`, `create_pr`, `dry_run`,
                `with_code`, `scores`, `dataset`, `license_id`.

        Returns:
            The files, the commit and its page.

        Raises:
            ConfigurationError: if there is no processor.
            HubError: if the Hub refuses or cannot be reached.
        """
        from .push import push_model  # with the Hub's client, which a model that only predicts does not need

        wanted: PushOptions = {**options, "message": commit_message or options.get("message")}
        return push_model(self, repo_id, processor=processor, **wanted)

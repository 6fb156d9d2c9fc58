"""Where a model is: in a folder, or on the Hub, from which it is brought here."""

from __future__ import annotations

from pathlib import Path

from ..errors import ModelFolderError
from .model_folder import download_patterns, variant_of
from .saving import current_folder

__all__ = ["local_model"]


def local_model(name: str | Path, options: dict[str, object], *parts: str) -> Path:
    """The folder of a model; one on the Hub is brought here first, all files of one commit.

    Args:
        name: a folder, or a Hub id.
        options: those of `from_pretrained`; the ones about the Hub are taken out where they served.
        parts: the parts of the model that are needed (see `model_folder.PARTS`); all if none is named.

    Raises:
        HubError: if it is not a folder, and the Hub does not give it.
        ModelFolderError: if it is a file, or the folder holds an interrupted save of elsewhere.
    """
    folder = Path(name)
    if folder.is_dir():
        if options.get("subfolder"):
            folder = folder / str(options.pop("subfolder"))
        return current_folder(folder) if __package__ == "xlgen_hf.files" else folder
    if folder.is_file():
        raise ModelFolderError(f"{folder} is a file, where the folder of a model is needed.")
    from .downloads import HUB_OPTIONS, download, hub_options  # the Hub's client, which a folder does without

    of_hub, variant = hub_options(options), None if parts else variant_of(options)
    for key in (*HUB_OPTIONS, "_commit_hash"):
        options.pop(key, None)
    return download(str(name), download_patterns(*parts, variant=variant), of_hub)

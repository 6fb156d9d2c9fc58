"""Loading and saving of models: untrusted files are checked before they are used, saves are atomic."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeVar

from torch import nn
from transformers import PreTrainedModel

from ..encoders.exported import ExportedPart
from ..errors import ConfigurationError
from ..files.downloads import HUB_OPTIONS
from ..files.model_checks import check_loaded, check_model, load_errors
from ..files.model_folder import ADAPTER_CONFIG_FILE, is_exported, variant_of
from ..files.saving import local_model, read_folder, replace_files

__all__ = ["ModelFilesMixin", "SavedModel"]

_Model = TypeVar("_Model", bound="ModelFilesMixin")


class SavedModel(Protocol):
    """What [`ModelFilesMixin`] needs of the model that it is mixed into."""

    backbone: PreTrainedModel

    def get_output_embeddings(self) -> nn.Module:
        """The output layer."""


class ModelFilesMixin:
    """Adds to a model the loading of untrusted folders, and saving that leaves no half a model."""

    @classmethod
    def from_pretrained(
        cls: type[_Model], pretrained_model_name_or_path: str | Path, *args: object, **options: object
    ) -> _Model:
        """Load a model from a folder or the Hub, after a check of its files; no pickle is ever read.

        Args:
            pretrained_model_name_or_path: the folder or Hub id of a model, or of an adapter, whose weights are then
                merged into those of its base.
            args, options: those of `PreTrainedModel.from_pretrained`.

        Raises:
            ModelFolderError: if the folder is no XLGen model, or its files do not fit each other.
            MissingExtraError: if it is an adapter and peft is not installed, or exported and onnxruntime is not.
        """
        # Where the Auto classes find an adapter, they give the name of its base here, and the adapter's in a keyword.
        adapter = options.pop("adapter_kwargs", None)
        if isinstance(adapter, dict) and adapter.get("_adapter_model_path") is not None:
            pretrained_model_name_or_path = adapter["_adapter_model_path"]
            options["revision"] = adapter.get("revision")
        if options.pop("use_safetensors", True) is False:
            raise ConfigurationError("use_safetensors=False would read a pickle. XLGen's weights are safetensors.")
        of_hub = {key: value for key, value in options.items() if key in HUB_OPTIONS - {"revision"}}
        place = local_model(pretrained_model_name_or_path, options)
        model = read_folder(place, lambda folder: cls._load(folder, args, {**options}, of_hub))
        loaded: PreTrainedModel = model[0] if options.get("output_loading_info") else model
        loaded.name_or_path = str(pretrained_model_name_or_path)
        return model

    @classmethod
    def _load(
        cls, folder: Path, args: tuple[object, ...], options: dict[str, object], of_hub: dict[str, object]
    ) -> PreTrainedModel:
        if (folder / ADAPTER_CONFIG_FILE).is_file():
            from .adapters import load_adapter  # needs peft, and knows this module

            return load_adapter(cls, folder, **{**options, **of_hub})
        if is_exported(folder):
            from .exported import load_exported  # needs onnxruntime

            return load_exported(cls, folder, options)
        if __package__ == "xlgen_hf.modules":  # whoever runs the code of a repository trusts its files as well
            check_model(cls, folder, options.get("config"), variant_of(options))
        wants_info = options.pop("output_loading_info", False)
        options = {**options, "use_safetensors": True, "output_loading_info": True}
        with load_errors(folder):
            model, info = super().from_pretrained(str(folder), *args, **options)  # type: ignore[misc]
        if "quantization_config" not in options:  # which renames weights
            check_loaded(folder, model, info)
        if __package__ == "xlgen_hf.modules":
            model.forget_untied()
        return (model, info) if wants_info else model

    def load_adapter(
        self,
        peft_model_id: str | Path,
        adapter_name: str = "default",
        *,
        is_trainable: bool = False,
        **hub_options: object,
    ) -> None:
        """Put an adapter into the model's layers, as transformers does it, after a check of its files.

        The first one is active at once, others after `set_adapter`. `from_pretrained` merges an adapter instead.

        Args:
            peft_model_id: the folder or Hub id of an adapter of this model.
            adapter_name: its name in the model.
            is_trainable: whether its weights get gradients.
            hub_options: `revision`, `token`, `cache_dir`, `force_download` and `local_files_only` of huggingface_hub.

        Raises:
            ModelFolderError: if the files are damaged, or do not fit the model.
            ConfigurationError: if the model has an adapter of this name, or an option is unknown.
            MissingExtraError: if peft is not installed.
        """
        from .adapters import attach_adapter, read_adapter

        unknown = sorted(set(hub_options) - HUB_OPTIONS)
        if unknown:
            raise ConfigurationError(f"load_adapter has no options {unknown}; choose from {sorted(HUB_OPTIONS)}.")
        if adapter_name in getattr(self, "peft_config", {}):
            raise ConfigurationError(f"The model has an adapter {adapter_name!r} already; give another adapter_name.")
        place = local_model(peft_model_id, {**hub_options})
        files = read_folder(place, read_adapter)
        attach_adapter(self, files, adapter_name, is_trainable=is_trainable)

    def set_adapter(self, adapter_name: str | list[str]) -> None:
        """Let one of the adapters that `load_adapter` loaded count, or several added up.

        Those of transformers leave out the rows of new tokens, so this and the next two are methods of the package.

        Args:
            adapter_name: its name, or their names.

        Raises:
            ConfigurationError: if the model has no such adapter.
        """
        from .adapters import switch_adapters

        switch_adapters(self, adapter_name)

    def disable_adapters(self) -> None:
        """Let no adapter count, until `enable_adapters`.

        Raises:
            ConfigurationError: if the model has no adapters.
        """
        from .adapters import enable_adapters

        enable_adapters(self, False)

    def enable_adapters(self) -> None:
        """Let the active adapters count again.

        Raises:
            ConfigurationError: if the model has no adapters.
        """
        from .adapters import enable_adapters

        enable_adapters(self, True)

    def save_pretrained(self, save_directory: str | Path, *args: object, **kwargs: object) -> None:
        """Write config and weights; what stands in the folder stays whole until all of it is written.

        Args:
            save_directory: the folder.
            args, kwargs: those of `PreTrainedModel.save_pretrained`.

        Raises:
            ConfigurationError: if it is an exported model.
            SaveError: if the disk is full, or the folder cannot be written.
            ConfigurationError: if the model should also be pushed.
        """
        backbone = getattr(self, "backbone", None)
        if isinstance(backbone, ExportedPart):
            backbone.save_pretrained()  # says why not
        if kwargs.get("push_to_hub"):
            raise ConfigurationError(
                "save_pretrained(push_to_hub=True) would put the model up without its processor. Call "
                "model.push_to_hub(repo_id, processor=processor), which takes the same options."
            )
        with replace_files(save_directory) as aside:
            super().save_pretrained(str(aside), *args, **kwargs)  # type: ignore[misc]

    def forget_untied(self: SavedModel) -> None:
        """Take an output layer with weights of its own (T5 v1.1) out of what is said to be tied; peft goes by it."""
        layer, tied = self.get_output_embeddings(), getattr(self.backbone, "_tied_weights_keys", None)
        if not isinstance(tied, dict) or layer is None:
            return
        names = {f"{name}.weight" for name, module in self.backbone.named_modules() if module is layer}
        weights = dict(self.backbone.named_parameters(remove_duplicate=False))
        untied = {name for name in names & set(tied) if weights.get(tied[name]) is not layer.weight}
        if untied:
            self.backbone._tied_weights_keys = {key: of for key, of in tied.items() if key not in untied}

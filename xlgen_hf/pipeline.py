"""The transformers pipeline `extreme-multilabel-classification`: texts to labels with scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from transformers.pipelines import PIPELINE_REGISTRY, Pipeline

from .configuration_xlgen import XLGenConfig
from .errors import ConfigurationError, DataError
from .loading import check_pair
from .modeling_xlgen import XLGenForConditionalGeneration
from .prediction.results import LabelPrediction
from .processing_xlgen import XLGenProcessor
from .ranking.decisions import DecisionRule

__all__ = ["TASK", "XLGenPipeline"]

TASK = "extreme-multilabel-classification"
_BATCH_SIZE = 64
_DECODING = ("num_beams", "min_labels", "max_labels")
_AT_ONCE = 4096  # texts of a list that are sorted by length together


class XLGenPipeline(Pipeline):
    """Gives each text its labels, most probable first, as `[{"label": ..., "score": ...}]`.

    `pipeline("extreme-multilabel-classification", model="folder or org/name")` makes one, of an adapter too. One text
    gives one list, a list of texts (or a column of a data set) a list of lists; a generator, a data set or a
    `KeyDataset` gives an iterator that predicts as it is read. Further settings of the call or of `pipeline(...)`:

    * `top_k`: number of labels of a text, however many the model would give; None (the default) for its own set.
    * `threshold`: least score of a label, from 0 to 1, in place of the model's own set; a text may be left without
      labels.
    * `batch_size`: texts in a batch, by default 64.
    * `num_beams`, `min_labels`, `max_labels`: see [`XLGenForConditionalGeneration.predict`].

    Args:
        model: the model.
        processor: its processor; loaded from where the model was if None.
        options: further arguments of `Pipeline`, and the settings above.

    Raises:
        ConfigurationError: if a setting is out of range or unknown, or the model is no XLGen model.
        ModelFolderError: if model and processor do not belong together.
    """

    _load_processor = False  # the pipeline function would want a `ProcessorMixin`
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_video_processor = False

    def __init__(self, model: Any, processor: XLGenProcessor | None = None, **options: Any) -> None:
        # By its type's name: of code out of a repository, transformers may have loaded the model's class twice.
        if getattr(model.config, "model_type", None) != XLGenConfig.model_type:
            raise ConfigurationError(f"{TASK} needs an XLGen model, not a {type(model).__name__}.")
        if processor is None:
            if not model.name_or_path:
                raise ConfigurationError("The model was not loaded from anywhere; give its processor too.")
            revision = getattr(model.config, "_commit_hash", None)
            processor = XLGenProcessor.from_pretrained(model.name_or_path, revision=revision)
            check_pair(model, processor, model.name_or_path)
        super().__init__(model=model.eval(), processor=processor, **options)

    def _sanitize_parameters(
        self, top_k: int | None = None, threshold: float | None = None, **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Sort settings into those of reading, of predicting and of showing; the first are none."""
        if top_k is not None and (type(top_k) is not int or top_k < 1):
            raise ConfigurationError(f"top_k={top_k!r}; a whole number from 1 on, or None for all labels.")
        if threshold is not None and not 0 <= threshold <= 1:
            raise ConfigurationError(f"threshold={threshold!r}; a score from 0 to 1, or None for all labels.")
        unknown = sorted(set(options) - set(_DECODING))
        if unknown:
            allowed = ["batch_size", *_DECODING, "threshold", "top_k"]
            raise ConfigurationError(f"Unknown settings {unknown}; choose from {sorted(allowed)}.")
        if top_k is not None:
            options["rule"] = DecisionRule("top_k", top_k)
        elif threshold is not None:
            options["rule"] = DecisionRule("threshold", threshold)
        return {}, options, {} if threshold is None else {"threshold": threshold}

    def __call__(
        self, inputs: Any, *, batch_size: int | None = None, num_workers: int | None = None, **kwargs: Any
    ) -> Any:
        """Predict labels.

        Args:
            inputs: a text, a list of texts, or anything else that yields texts.
            batch_size: texts in a batch; that of the pipeline if None.
            num_workers: not used; texts are cheap to read.
            kwargs: settings, see the class.

        Returns:
            A list of `{"label", "score"}` for a text; a list of such lists for a sequence, as lists and columns of a
            data set are; an iterator for all else.
        """
        size = batch_size or self._batch_size or _BATCH_SIZE
        if type(size) is not int or size < 1:
            raise ConfigurationError(f"batch_size={size!r}; a whole number from 1 on is needed.")
        _, forward, post = self._sanitize_parameters(**kwargs)
        forward, post = {**self._forward_params, **forward}, {**self._postprocess_params, **post}
        if isinstance(inputs, str | dict):
            return next(self._results([inputs], size, 1, forward, post))
        if isinstance(inputs, Sequence):
            return list(self._results(inputs, size, _AT_ONCE, forward, post))
        if not isinstance(inputs, Iterable) and not hasattr(inputs, "__getitem__"):
            raise DataError(f"A {type(inputs).__name__} was given; texts are needed.")
        return self._results(inputs, size, size, forward, post)

    def _results(
        self, inputs: Iterable[Any], batch_size: int, at_once: int, forward: dict[str, Any], post: dict[str, Any]
    ) -> Iterator[list[dict[str, Any]]]:
        """Read texts, predict and show, so many at once."""
        texts = (self.preprocess(one) for one in inputs)
        while chunk := list(islice(texts, at_once)):
            for prediction in self.forward(chunk, batch_size=batch_size, **forward):
                yield self.postprocess(prediction, **post)

    def preprocess(self, input_: Any, **_: Any) -> str:
        """The text of an input: itself, or the `text` of a row."""
        text = input_.get("text") if isinstance(input_, dict) else input_
        if not isinstance(text, str):
            raise DataError(f"{str(text)[:80]!r} is a {type(text).__name__}; a text, or a row with `text`, is needed.")
        return text

    def forward(self, model_inputs: list[str], **forward_params: Any) -> list[LabelPrediction]:
        """Predict a list of texts on the pipeline's device."""
        with self.device_placement(), self.get_inference_context()():
            return self._forward(model_inputs, **forward_params)

    def _forward(self, input_tensors: list[str], **forward_params: Any) -> list[LabelPrediction]:
        predictions: list[LabelPrediction] = self.model.predict(input_tensors, self.processor, **forward_params)
        return predictions

    def postprocess(self, model_outputs: LabelPrediction, threshold: float = 0.0) -> list[dict[str, Any]]:
        """A prediction in the form that `text-classification` has."""
        ranked = zip(model_outputs.labels, model_outputs.scores, strict=True)
        return [{"label": label, "score": score} for label, score in ranked if score >= threshold]

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Write model and processor into one folder."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)


# A copy in one model's repository is not for other models.
if __package__ == "xlgen_hf" and TASK not in PIPELINE_REGISTRY.supported_tasks:
    PIPELINE_REGISTRY.register_pipeline(
        TASK, pipeline_class=XLGenPipeline, pt_model=XLGenForConditionalGeneration, type="text"
    )

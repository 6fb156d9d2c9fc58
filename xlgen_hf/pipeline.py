"""The transformers pipeline `extreme-multilabel-classification`: texts to labels with scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from difflib import get_close_matches
from itertools import islice
from typing import Any

from transformers.pipelines import PIPELINE_REGISTRY, Pipeline

from .configuration_xlgen import XLGenConfig
from .decoding.decoded_sets import DecodingOptions
from .errors import ConfigurationError, DataError
from .loading import check_pair
from .modeling_xlgen import XLGenForConditionalGeneration
from .prediction.results import LabelPrediction
from .processing_xlgen import XLGenProcessor
from .ranking.decisions import DecisionRule

__all__ = ["TASK", "XLGenPipeline"]

TASK = "extreme-multilabel-classification"
_BATCH_SIZE = 64
_OPTIONS = ("allowed", "decoding", "expected_f1", "open_vocabulary", "rule", "threshold", "top_k")
_DECODING = tuple(one.name for one in fields(DecodingOptions))
_AT_ONCE = 4096  # texts of a list that are sorted by length together


class XLGenPipeline(Pipeline):
    """Gives each text its labels, most probable first, as `[{"label": ..., "score": ...}]`.

    `pipeline("extreme-multilabel-classification", model="folder or org/name")` makes one, of an adapter too. One text
    gives one list, a list of texts (or a column of a data set) a list of lists; a generator, a data set or a
    `KeyDataset` gives an iterator that predicts as it is read. Further settings of the call or of `pipeline(...)`:

    * `top_k`: number of labels of a text, however many the model would give; None (the default) for its own set.
    * `threshold`: minimum score of a label, from 0 to 1, instead of the model's own set; a text may be left without
      labels.
    * `expected_f1`: as many labels as promise the highest F1; `rule`: any other [`DecisionRule`].
    * `batch_size`: texts in a batch, by default 64.
    * `allowed`, `open_vocabulary`: see [`XLGenForConditionalGeneration.predict`].
    * `decoding`: [`DecodingOptions`], or its fields by name (`num_beams`, `min_labels`, `max_labels` ...).

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

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Sort settings into those of reading, of predicting and of showing; the first and last are none."""
        unknown = sorted(set(options) - {*_OPTIONS, *_DECODING})
        if unknown:
            near = get_close_matches(unknown[0], [*_OPTIONS, *_DECODING], n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            allowed = sorted(["batch_size", *_OPTIONS, *_DECODING])
            raise ConfigurationError(f"Unknown settings {unknown}; choose from {allowed}.{hint}")
        given = {name: value for name, value in options.items() if name in _OPTIONS and value is not None}
        forward = {name: value for name, value in given.items() if name in ("allowed", "open_vocabulary")}
        rule = _rule(given)
        if rule is not None:
            forward["rule"] = rule
        searched = {name: value for name, value in options.items() if name in _DECODING}
        if searched and "decoding" in given:
            raise ConfigurationError(f"Give decoding=... or {sorted(searched)}, not both.")
        if searched or "decoding" in given:
            forward["decoding"] = given.get("decoding") or DecodingOptions(**searched)
        return {}, forward, {}

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
            raise ConfigurationError(f"batch_size={size!r}; it must be an integer >= 1.")
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

    def postprocess(self, model_outputs: LabelPrediction) -> list[dict[str, Any]]:
        """A prediction in the form that `text-classification` has."""
        ranked = zip(model_outputs.labels, model_outputs.scores, strict=True)
        return [{"label": label, "score": score} for label, score in ranked]

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Write model and processor into one folder."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)


def _rule(given: dict[str, Any]) -> DecisionRule | None:
    """The decision rule that the settings ask for; None for the model's own."""
    names = [name for name in ("top_k", "threshold", "expected_f1", "rule") if given.get(name) not in (None, False)]
    if len(names) > 1:
        raise ConfigurationError(f"{' and '.join(names)} exclude each other; choose one.")
    if not names:
        return None
    if names == ["rule"]:
        rule: DecisionRule = given["rule"]
        return rule
    if names == ["expected_f1"]:
        return DecisionRule("expected_f1")
    value = given[names[0]]
    if type(value) not in (int, float):
        raise ConfigurationError(f"{names[0]}={value!r}; it must be a number.")
    return DecisionRule(names[0], value)  # type: ignore[arg-type]


# A copy in one model's repository is not for other models.
if __package__ == "xlgen_hf" and TASK not in PIPELINE_REGISTRY.supported_tasks:
    PIPELINE_REGISTRY.register_pipeline(
        TASK, pipeline_class=XLGenPipeline, pt_model=XLGenForConditionalGeneration, type="text"
    )

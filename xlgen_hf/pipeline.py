"""The transformers pipeline `extreme-multilabel-classification`: texts to labels with scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
from transformers import PreTrainedModel
from transformers.pipelines import PIPELINE_REGISTRY, Pipeline

from .configuration_xlgen import XLGenConfig
from .decoding.decoded_sets import DecodingOptions
from .errors import ConfigurationError, DataError
from .loading import check_pair
from .modeling_xlgen import XLGenForConditionalGeneration
from .prediction.results import LabelPrediction
from .processing_xlgen import XLGenProcessor
from .ranking.decisions import DecisionRule
from .settings import BATCH_SIZE

__all__ = ["TASK", "ScoredLabel", "XLGenPipeline"]

TASK = "extreme-multilabel-classification"
# Arguments of `predict` that are settings as they are -> what makes them of what is given.
_PLAIN: dict[str, Callable[..., object]] = {
    "abstain_below": lambda bound: bound, "allowed": np.asarray, "concepts": bool, "evidence": bool,
    "open_vocabulary": bool, "output_language": str, "with_parents": bool,
}  # fmt: skip
_RULES = ("expected_f1", "rule", "threshold", "top_k")
_OPTIONS = (*_PLAIN, "decoding", *_RULES)
_DECODING = tuple(field.name for field in fields(DecodingOptions))
_AT_ONCE = 4096  # texts of a list that are sorted by length together


class _LabelAndScore(TypedDict):
    label: str
    score: float


class ScoredLabel(_LabelAndScore, total=False):
    """A predicted label, in the form that `text-classification` has, with what else is known or was asked for.

    Attributes:
        id: id of its concept; None for a label without one, where concepts were asked for.
        language, broader: language of the label and ids of the concepts directly above it, see [`PredictedConcept`].
        parents: these with their labels, as `{"id", "label"}`.
        evidence: what speaks for it, as JSON holds [`LabelEvidence`].
        abstain: whether a person should look at its text.
    """

    id: str | None
    language: str | None
    broader: list[str]
    parents: list[dict[str, str]]
    evidence: dict[str, object]
    abstain: bool


class _Settings(TypedDict, total=False):
    """Arguments of `predict` that a pipeline, or a call of it, sets."""

    decoding: DecodingOptions
    rule: DecisionRule | None
    allowed: np.ndarray
    open_vocabulary: bool
    evidence: bool
    abstain_below: float
    output_language: str
    with_parents: bool
    concepts: bool


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
    * `concepts` (adds `id`, `language` and `broader`), `output_language`, `with_parents`: see there, too.
    * `evidence`: add what speaks for each label, as `evidence`.
    * `abstain_below`: say of each label, as `abstain`, whether a person should look at its text, since the F1 that is
      expected of its labels is lower.
    * `decoding`: [`DecodingOptions`], or its fields by name (`num_beams`, `min_labels`, `max_labels` ...); those
      that a call names change those of the pipeline.

    Args:
        model: the model.
        processor: its processor; loaded from where the model was if None.
        options: further arguments of `Pipeline`, and the settings above.

    Raises:
        ConfigurationError: if a setting is out of range or unknown, or the model is not an XLGen model.
        ModelFolderError: if model and processor do not belong together.
    """

    _load_processor = False  # the pipeline function would want a `ProcessorMixin`
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_video_processor = False

    def __init__(self, model: PreTrainedModel, processor: XLGenProcessor | None = None, **options: object) -> None:
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
        if processor.retriever is not None:
            processor.retriever.encoder[0].to(self.device)

    def _sanitize_parameters(self, **options: object) -> tuple[dict[str, object], _Settings, dict[str, object]]:
        """Sort settings into those of reading, of predicting and of showing; the first and last are none."""
        _check_names(options)
        given = {name: make(options[name]) for name, make in _PLAIN.items() if options.get(name) is not None}
        forward = cast("_Settings", given)
        if (rule := _rule(options)) is not None or not options.keys().isdisjoint(_RULES):
            forward["rule"] = rule  # None takes back what the pipeline was made with
        before = getattr(self, "_forward_params", {}).get("decoding", DecodingOptions())  # none while it is made
        if (decoding := _decoding(options, before)) is not None:
            forward["decoding"] = decoding
        return {}, forward, {}

    def __call__(
        self, inputs: object, *, batch_size: int | None = None, num_workers: int | None = None, **kwargs: object
    ) -> list[ScoredLabel] | list[list[ScoredLabel]] | Iterator[list[ScoredLabel]]:
        """Predict labels.

        Args:
            inputs: a text, a list of texts, or anything else that yields texts.
            batch_size: texts in a batch; that of the pipeline if None.
            num_workers: not used; texts are cheap to read.
            kwargs: settings, see the class.

        Returns:
            A list of `{"label", "score"}` for a text; a list of such lists for a sequence, as lists and columns of a
            data set are; an iterator for all else.

        Raises:
            ConfigurationError: if a setting is out of range or unknown.
            DataError: if an input is not a text, a row with `text`, or an iterable of these.
        """
        size = next(size for size in (batch_size, self._batch_size, BATCH_SIZE) if size is not None)
        if type(size) is not int or size < 1:
            raise ConfigurationError(f"batch_size={size!r}; it must be an integer >= 1.")
        settings: _Settings = {**self._forward_params, **self._sanitize_parameters(**kwargs)[1]}
        if isinstance(inputs, str | Mapping):
            return next(self._results([inputs], size, 1, settings))
        if isinstance(inputs, Sequence):
            return list(self._results(inputs, size, _AT_ONCE, settings))
        if not isinstance(inputs, Iterable) and not hasattr(inputs, "__getitem__"):
            raise DataError(f"{str(inputs)[:80]} is not a text, a row, or an iterable of these.")
        return self._results(cast("Iterable[object]", inputs), size, size, settings)

    def _results(
        self, inputs: Iterable[object], batch_size: int, at_once: int, settings: _Settings
    ) -> Iterator[list[ScoredLabel]]:
        """Read texts and predict, so many at once."""
        texts = (self.preprocess(item) for item in inputs)
        while chunk := list(islice(texts, at_once)):
            for prediction in self.forward(chunk, batch_size=batch_size, **settings):
                yield self.postprocess(prediction)

    def preprocess(self, input_: object) -> str:
        """The text of an input: itself, or the `text` of a row."""
        text = input_.get("text") if isinstance(input_, Mapping) else input_
        if not isinstance(text, str):
            raise DataError(f"{str(input_)[:80]} is not a text; give a text, or a row with `text`.")
        return text

    def forward(self, model_inputs: list[str], **settings: object) -> list[LabelPrediction]:
        """Predict a list of texts on the pipeline's device."""
        with self.device_placement(), self.get_inference_context()():
            return self._forward(model_inputs, **settings)

    def _forward(self, input_tensors: list[str], **settings: object) -> list[LabelPrediction]:
        return cast("list[LabelPrediction]", self.model.predict(input_tensors, self.processor, **settings))

    def postprocess(self, model_outputs: LabelPrediction) -> list[ScoredLabel]:
        """A prediction in the form that `text-classification` has."""
        number = len(model_outputs.labels)
        ids = model_outputs.ids or [None] * number
        ranked = zip(model_outputs.labels, model_outputs.scores, ids, strict=True)
        found: list[ScoredLabel] = []
        for label, score, concept_id in ranked:
            found.append({"label": label, "score": score})
            if concept_id is not None:
                found[-1]["id"] = concept_id
        for of_label, concept in zip(found, model_outputs.concepts or (), strict=False):
            of_label |= {"id": concept.id, "language": concept.language, "broader": concept.broader}
        for of_label, parents in zip(found, model_outputs.parents or (), strict=False):
            of_label["parents"] = parents
        for of_label, evidence in zip(found, model_outputs.evidence or (), strict=False):
            of_label["evidence"] = evidence.to_dict()
        for of_label in found if model_outputs.abstain is not None else ():
            of_label["abstain"] = bool(model_outputs.abstain)
        return found

    def save_pretrained(self, save_directory: str | Path, **kwargs: object) -> None:
        """Write model and processor into one folder."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)


def _check_names(options: Mapping[str, object]) -> None:
    known = ["batch_size", *_OPTIONS, *_DECODING]
    unknown = sorted(set(options) - set(known))
    if unknown:
        near = get_close_matches(unknown[0], known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigurationError(f"Unknown settings {unknown}; choose from {sorted(known)}.{hint}")


def _decoding(options: Mapping[str, object], before: DecodingOptions) -> DecodingOptions | None:
    """How to search, as the settings ask for; fields change those of `before`. None where they say nothing."""
    decoding = options.get("decoding")
    by_name = {name: value for name, value in options.items() if name in _DECODING}
    if decoding is not None and not isinstance(decoding, DecodingOptions):
        raise ConfigurationError(f"decoding={decoding!r}; it must be DecodingOptions.")
    if decoding is not None and by_name:
        raise ConfigurationError(f"Give decoding=... or {sorted(by_name)}, not both.")
    return replace(before, **by_name) if by_name else decoding  # type: ignore[arg-type]


def _rule(options: Mapping[str, object]) -> DecisionRule | None:
    """The decision rule that the settings ask for; None for the model's own."""
    rule, expected_f1 = options.get("rule"), options.get("expected_f1", False)
    if type(expected_f1) is not bool:
        raise ConfigurationError(f"expected_f1={expected_f1!r}; it must be True or False.")
    if rule is not None and not isinstance(rule, DecisionRule):
        raise ConfigurationError(f"rule={rule!r}; it must be a DecisionRule.")
    rules = {} if rule is None else {"rule": rule}
    for kind in ("top_k", "threshold"):
        if options.get(kind) is not None:
            rules[kind] = DecisionRule(kind, options[kind])  # type: ignore[arg-type]
    if expected_f1:
        rules["expected_f1"] = DecisionRule("expected_f1")
    if len(rules) > 1:
        raise ConfigurationError(f"{' and '.join(rules)} exclude each other; choose one.")
    return next(iter(rules.values()), None)


# A copy in one model's repository is not for other models.
if __package__ == "xlgen_hf" and TASK not in PIPELINE_REGISTRY.supported_tasks:
    PIPELINE_REGISTRY.register_pipeline(
        TASK, pipeline_class=XLGenPipeline, pt_model=XLGenForConditionalGeneration, type="text"
    )

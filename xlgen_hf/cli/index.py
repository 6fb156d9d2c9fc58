"""`xlgen index`: make a retriever, or label trees, out of training rows."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from ..data.blocks import each_value
from ..data.options import RowOptions
from ..settings import DEFAULT_BACKBONE, RETRIEVER_LENGTH, EncoderSettings
from ..training.settings import ContrastiveSettings
from .answering import check_packages
from .console import is_first_process, print_written
from .options import CpuThreads, Labels, Overwrite, given_names, given_settings, limit_threads, takes_settings
from .processes import Processes, check_alone, working_together
from .rows import chosen_vocabulary, takes_row_options, warn_of_shared_texts

if TYPE_CHECKING:
    from datasets import Dataset

    from ..labels.space import LabelSpace
    from ..labels.vocabulary import Vocabulary
    from ..ranking.label_trees import LabelTrees
    from ..ranking.score_model import ScoreModel
    from ..ranking.scored_labels import ScoredLabels
    from ..ranking.sources import SavedSource
    from ..retrieval.documents import DocumentNames
    from ..retrieval.retriever import LabelRetriever
    from ..training.label_trees import TreeKind
    from ..training.shared_embedding import SharedEmbedding

__all__ = ["index"]

logger = logging.getLogger(__name__)

_CACHE = "cache"  # folder for checkpoints and embeddings, in that of the index
_CUTS = (5, 10, 20, 50)
_MANY_ROWS = 20  # of a label, on average
_SHOWN_TEXTS = 2_000  # texts that the printed fractions come from
_OF_RETRIEVAL = (
    "encoder", "query_prompt", "passage_prompt", "epochs", "learning_rate", "temperature", "batch_size",
    "hard_negatives", "max_length",
    "lexical", "aliases", "other_languages", "definitions", "id_column", "keep_beginnings", "trim_vocabulary", "dtype",
    "search", "seed",
)  # fmt: skip


@takes_row_options(leave_out=("keep_columns",))
@takes_settings(
    EncoderSettings,
    ContrastiveSettings,
    group="Training of the encoder",
    leave_out=("random_negatives", "max_length"),
)
def index(
    context: typer.Context,
    train_file: Annotated[
        str, typer.Option(help="Training rows: JSON Lines, CSV, Parquet, a folder or a Hub data set.")
    ],
    output_dir: Annotated[Path, typer.Option(file_okay=False, help="Folder to write label space and index into.")],
    validation_file: Annotated[
        str | None,
        typer.Option(
            help="Rows that choose how neighbours and names are weighed, how many labels are predicted, and calibrate"
            " scores.",
            show_default="no calibration, 5 labels per text",
        ),
    ] = None,
    labels: Labels = None,
    method: Annotated[
        Literal["retrieval", "bonsai", "parabel"],
        typer.Option(
            help="What is made: a retriever, or label trees (extra baselines), which rank seen labels alone."
        ),
    ] = "retrieval",
    encoder: Annotated[
        str, typer.Option(help="Encoder of texts and label names: folder, name or Hub id.")
    ] = DEFAULT_BACKBONE,
    max_length: Annotated[
        int,
        typer.Option(
            min=8,
            help="Tokens of a text that the encoder indexes; it is trained with at most "
            f"{ContrastiveSettings.max_length}.",
        ),
    ] = RETRIEVER_LENGTH,
    lexical: Annotated[
        bool,
        typer.Option(help="Let character n-grams count as well, unless validation rows are clearly better without."),
    ] = True,
    aliases: Annotated[
        bool | None,
        typer.Option(
            help="Let aliases of the vocabulary count as well, in the language of the labels.",
            show_default="with --vocabulary",
        ),
    ] = None,
    other_languages: Annotated[
        bool | None,
        typer.Option(help="Let names and aliases in other languages count as well.", show_default="with --vocabulary"),
    ] = None,
    definitions: Annotated[
        bool, typer.Option("--definitions", help="Let definitions of the vocabulary count as names do.")
    ] = False,
    keep_beginnings: Annotated[
        int,
        typer.Option(
            min=0,
            max=1000,
            help="Characters of each training text that the index keeps, to show them as evidence. With 0 the folder"
            " holds no text, only ids.",
        ),
    ] = 0,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(
            help="Type of numbers to train and embed in; auto is bfloat16 where the GPU or CPU has instructions for it"
            " (faster), else float32. The encoder itself is kept in float32."
        ),
    ] = "float32",
    search: Annotated[
        Literal["exact", "approximate"],
        typer.Option(
            help="How nearest texts and names are found. approximate (extra faiss) is faster from some 500,000 of them"
            " on, and misses a few; how many is measured and reported."
        ),
    ] = "exact",
    cpu_threads: CpuThreads = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of the encoder's training, and of approximate search.")
    ] = 0,
    overwrite: Overwrite = False,
    *,
    epochs: float,
    learning_rate: float,
    temperature: float,
    batch_size: int,
    hard_negatives: int,
    rows: RowOptions,
    query_prompt: str | None,
    passage_prompt: str | None,
    trim_vocabulary: bool,
) -> None:
    """Make an index that predicts by itself, and that `train --variant rcl` and hybrids find candidate labels with.

    The same command continues a run that was interrupted. Several processes (`torchrun`, `accelerate launch`) share
    the embedding of texts and names.
    """
    from ..data.rows import load_rows
    from ..files.outputs import claim_folder

    settings = _settings(method, context)
    _check_options(method, given_names(context), output_dir)
    if method != "retrieval":
        check_alone("Several processes cannot make label trees together; start one.")
    if search == "approximate":
        check_packages("faiss", ["faiss"])
    limit_threads(cpu_threads)
    splits = {
        "train": load_rows(train_file, rows, split="train"),
        "validation": None if validation_file is None else load_rows(validation_file, rows, split="validation"),
    }
    if is_first_process():
        warn_of_shared_texts(splits, train_file, rows)
    needing = {"--aliases": aliases, "--other-languages": other_languages, "--definitions": definitions}
    vocabulary = _vocabulary(labels, rows, needing)
    sources = {"train": train_file, "validation": validation_file or ""}
    with working_together("index") as processes:
        if not processes.is_first:
            _help(_shared(processes, output_dir), settings, splits, vocabulary)
            return
        with claim_folder(output_dir, command="xlgen index", settings=given_settings(context), overwrite=overwrite):
            _make(output_dir, settings, splits, vocabulary, sources, cpu_threads, _shared(processes, output_dir))
    print_written(output_dir, "Index")


def _shared(processes: Processes, output_dir: Path) -> SharedEmbedding | None:
    """How several processes embed together; None for one."""
    if processes.count == 1:
        return None
    from ..training.shared_embedding import SharedEmbedding

    return SharedEmbedding(processes, output_dir / _CACHE)


def _help(
    shared: SharedEmbedding | None,
    settings: dict[str, Any],
    splits: dict[str, Dataset | None],
    vocabulary: Vocabulary | list[str] | None,
) -> None:
    """Embed what the first process leaves to this one; it leaves nothing of an index that is finished."""
    from ..data.transforms import rows_that_teach
    from ..encoders.embedding import recipe_of
    from ..labels.space import LabelSpace
    from ..labels.vocabulary import Vocabulary, vocabulary_labels

    assert shared is not None
    if not shared.processes.told():
        return
    train = splits["train"]
    assert train is not None
    train = train.select(rows_that_teach(train))
    space = LabelSpace.from_label_lists(each_value(train, "labels"), vocabulary_labels(vocabulary))
    concepts = vocabulary if isinstance(vocabulary, Vocabulary) else None
    further = _Data(space, train, None, shared.folder, concepts, None).further_names(settings)
    texts = [train["text"][:], [*space.names, *(name for _, name in further)]]
    recipe = recipe_of(settings["encoder"], settings["query_prompt"], settings["passage_prompt"])
    shared.follow(texts, recipe, settings["max_length"], settings["dtype"])


def _vocabulary(
    labels: str | None, rows: RowOptions, needing: dict[str, bool | None]
) -> Vocabulary | list[str] | None:
    """The vocabulary, which options that are set may need to have concepts."""
    from ..errors import ConfigurationError
    from ..labels.vocabulary import Vocabulary

    vocabulary = chosen_vocabulary(labels, rows)
    option = next((name for name, is_set in needing.items() if is_set), None)
    if option is not None and not isinstance(vocabulary, Vocabulary):
        raise ConfigurationError(f"{option} has no effect without concepts; give --vocabulary.")
    return vocabulary


def _settings(method: str, context: typer.Context) -> dict[str, Any]:
    """What decides the index besides rows and vocabulary, by the names of options."""
    values = {name: context.params[name] for name in _OF_RETRIEVAL} if method == "retrieval" else {}
    if values.get("search") == "exact":
        del values["search"]  # indexes of before, which do not say it, are the same
    return {"method": method, **values}


def _make(
    output_dir: Path,
    settings: dict[str, Any],
    splits: dict[str, Dataset | None],
    vocabulary: Vocabulary | list[str] | None,
    sources: dict[str, str],
    threads: int | None,
    shared: SharedEmbedding | None,
) -> None:
    """Make the index, unless the folder holds this very one, and write it with report and card."""
    from ..data.transforms import rows_that_teach
    from ..hub.local_cards import write_local_card
    from ..labels.space import LabelSpace
    from ..labels.vocabulary import Vocabulary, vocabulary_labels
    from ..prediction.predictor import Predictor
    from ..retrieval.model_sources import save_source_alone
    from ..training.index_report import describe_index, is_finished_index, write_index_report
    from ..training.retriever import remove_encoder_checkpoints
    from ..training.run_record import holds_earlier_work

    started, continues = time.monotonic(), holds_earlier_work(output_dir / _CACHE)
    train, validation, names = splits["train"], splits["validation"], None
    assert train is not None
    if settings["method"] == "retrieval":
        kept = rows_that_teach(train)
        train, names = train.select(kept), _document_names(train, kept.tolist(), settings)
    description = describe_index(settings, splits, vocabulary, None if names is None else names.ids)
    finished = is_finished_index(output_dir, description)
    if shared is not None:
        shared.processes.told(int(not finished))
    if finished:
        logger.info("%s holds the finished result of this command; there is nothing to do.", output_dir)
        return
    space = LabelSpace.from_label_lists(each_value(train, "labels"), vocabulary_labels(vocabulary))
    concepts = vocabulary if isinstance(vocabulary, Vocabulary) else None
    source: SavedSource
    if settings["method"] == "retrieval":
        data = _Data(space, train, validation, output_dir / _CACHE, concepts, names)
        name, source = "retrieval", _make_retriever(data, settings, shared)
    else:
        name, source = "label_trees", _make_label_trees(space, train, settings["method"], threads)
    score_model = _score_model(source, space, validation)
    save_source_alone(output_dir, space, name, source, score_model, concepts)
    predictor = Predictor(space, source, score_model, vocabulary=concepts)
    seconds = None if continues else time.monotonic() - started
    write_index_report(output_dir, settings, description, splits, sources, predictor, seconds=seconds)
    write_local_card(output_dir)
    remove_encoder_checkpoints(output_dir / _CACHE)
    if name == "retrieval":
        _hint_at_label_trees(space, output_dir)


def _hint_at_label_trees(space: LabelSpace, folder: Path) -> None:
    rows = space.counts.sum() / max((space.counts > 0).sum(), 1)
    if rows >= _MANY_ROWS:
        message = (
            "A label has %.0f training rows on average. With so many, label trees often know more than what is near; "
            "`xlgen hybrid --model %s --linear bonsai` fuses both."
        )
        logger.info(message, rows, folder)


class _Data(NamedTuple):
    """What a retriever is made of, and where its training keeps checkpoints and embeddings."""

    space: LabelSpace
    rows: Dataset
    validation: Dataset | None
    cache: Path
    vocabulary: Vocabulary | None
    document_names: DocumentNames | None

    def further_names(self, settings: dict[str, Any]) -> list[tuple[int, str]]:
        """What counts besides labels."""
        if self.vocabulary is None:
            return []
        return self.vocabulary.further_names(
            self.space.index,
            names=settings["aliases"] is not False,
            other_languages=settings["other_languages"] is not False,
            definitions=settings["definitions"],
        )


def _document_names(rows: Dataset, kept: list[int], settings: dict[str, Any]) -> DocumentNames:
    """What evidence calls the training rows that are indexed: by the column of ids, or by their number."""
    from ..data.rows import row_ids
    from ..retrieval.documents import DocumentNames

    column, characters = settings["id_column"], settings["keep_beginnings"]
    ids = row_ids(rows, column)
    texts = rows["text"][:] if characters else []
    return DocumentNames.of(
        (ids[row] for row in kept),
        [texts[row] for row in kept] if characters else [],
        characters,
    )


def _check_options(method: str, given: set[str], output_dir: Path) -> None:
    """Refuse options of retrieval where label trees are made, and a folder whose model would be spoiled."""
    from ..errors import ConfigurationError
    from ..files.model_folder import PROCESSOR_FILE

    useless = [name for name in _OF_RETRIEVAL if name in given] if method != "retrieval" else []
    if useless:
        option = "--" + useless[0].replace("_", "-")
        raise ConfigurationError(f"{option} has no effect with --method {method}; it is for --method retrieval.")
    if (output_dir / PROCESSOR_FILE).exists():
        raise ConfigurationError(f"{output_dir} holds a trained model; choose another folder for the index.")


def _make_retriever(data: _Data, settings: dict[str, Any], shared: SharedEmbedding | None) -> LabelRetriever:
    """A retriever of the training rows; prints what it finds for some of them."""
    from ..encoders.trimming import trim_checkpoint
    from ..retrieval.retriever import RetrievalSettings
    from ..training.build import texts_to_keep_tokens_of
    from ..training.retriever import fit_retriever

    length = min(settings["max_length"], ContrastiveSettings.max_length)
    contrastive = ContrastiveSettings(
        settings["epochs"], settings["batch_size"], settings["learning_rate"], settings["temperature"],
        max_length=length, hard_negatives=settings["hard_negatives"],
    )  # fmt: skip
    encoder = settings["encoder"]
    if settings["trim_vocabulary"]:
        texts = texts_to_keep_tokens_of(data.space, (data.rows, data.validation), data.vocabulary)
        prompts = filter(None, (settings["query_prompt"], settings["passage_prompt"]))
        encoder = trim_checkpoint(encoder, [*texts, *prompts], data.cache)
    retriever = fit_retriever(
        data.space,
        data.rows,
        data.validation,
        encoder,
        data.cache,
        query_prompt=settings["query_prompt"],
        passage_prompt=settings["passage_prompt"],
        contrastive=contrastive,
        settings=RetrievalSettings(max_length=settings["max_length"]),
        lexical=settings["lexical"],
        further=data.further_names(settings),
        document_names=data.document_names,
        dtype=settings["dtype"],
        approximate=settings.get("search") == "approximate",
        shared=shared,
        seed=settings["seed"],
    )
    shown: list[str] = data.rows["text"][:_SHOWN_TEXTS]
    _print_recall(
        "training rows (no text finds itself)", retriever.rank_training_texts(shown, max(_CUTS)), data.rows, data.space
    )
    return retriever


def _make_label_trees(space: LabelSpace, rows: Dataset, kind: TreeKind, threads: int | None) -> LabelTrees:
    from ..training.label_trees import fit_label_trees

    label_ids = [space.encode(names) for names in each_value(rows, "labels")]
    return fit_label_trees(space, rows["text"][:], label_ids, kind, threads=threads)


def _score_model(source: SavedSource, space: LabelSpace, validation: Dataset | None) -> ScoreModel:
    """Weights, thresholds and the rule of what predicts, from validation rows where there are some."""
    from ..prediction.kinds import name_of_source
    from ..prediction.predictor import Predictor
    from ..ranking.fitting import encode_references, weighed_model
    from ..ranking.score_model import ScoreModel

    if validation is None:
        logger.info("Without --validation-file scores are not calibrated, and 5 labels are predicted for each text.")
        return ScoreModel()
    found = Predictor(space, source).rank(validation["text"][:], max(_CUTS), progress=True)
    _print_recall("validation rows", found, validation, space)
    references = encode_references(space, each_value(validation, "labels"))
    return weighed_model(found, references, space.counts, name_of_source(source))


def _print_recall(name: str, found: ScoredLabels, rows: Dataset, space: LabelSpace) -> None:
    """The fraction of a text's labels among its first candidates."""
    from .console import print_table

    shown = found.take(range(min(_SHOWN_TEXTS, len(found))))
    references = [space.encode_known(names)[0] for names in rows["labels"][: len(shown)]]
    correct, total = shown.correct(references), max(sum(map(len, references)), 1)
    print_table(
        f"Fraction of a text's labels among its candidates, {name}",
        tuple(f"first {k}" for k in _CUTS),
        [tuple(correct[shown.rank < k].sum() / total for k in _CUTS)],
    )

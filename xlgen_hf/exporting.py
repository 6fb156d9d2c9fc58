"""Exporting: encoder and decoder step of a model as graphs in ONNX, which onnxruntime computes faster on a CPU."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.export import Dim
from transformers import EncoderDecoderCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import ModelOutput

from .decoding.memory import XLGenMemory
from .encoders.exported import ENCODER, EncoderFacts, Graph, write_export
from .encoders.file_tokenizer import FileTokenizer, same_tokens
from .encoders.loaded import LoadedTokenizer, longest_text
from .errors import ConfigurationError, MissingExtraError
from .files.model_folder import (
    MODEL_FILES,
    RETRIEVER_FOLDER,
    WEIGHTS,
    WEIGHTS_FILE,
    files_of_model,
    holds_graphs,
    matches,
)
from .files.saving import local_model, read_folder, replace_files
from .files.serialization import write_tensors
from .files.tokenizer_checks import TOKENIZER_FILE
from .labels.space import LabelSpace
from .loading import holds_model, load_model
from .modeling_xlgen import XLGenForConditionalGeneration
from .modules.compatibility import cache_argument, cache_of
from .modules.dry_run import Difference, dry_run
from .modules.exported import CROSS, STEP, filled_cache, load_exported, step_inputs, tensors_of
from .modules.only_predicts import run_graph
from .processing_xlgen import XLGenProcessor
from .retrieval.retriever import LabelRetriever
from .settings import Precision

__all__ = ["export_encoder", "export_folder", "export_model", "quantize_graphs"]

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_TORCH = "2.13"  # that of 2.6 fails with the onnxscript of today; none between was tried
_LARGEST = 2**31 - 2**24  # bytes of a file in ONNX, with room for what is not weights
_LONGEST = 2**31  # tokens of a text, where nothing says so
_ROWS, _LENGTH, _TARGET = 3, 7, 4  # sizes of the examples that are traced; graphs take any
_FREE = Dim.DYNAMIC
_TEXTS = {0: _FREE, 1: _FREE}


def export_folder(name: str, output_dir: Path, precision: Precision) -> None:
    """Export what a folder predicts with: an XLGen model or adapter with its retriever, or an index alone.

    Args:
        name: a folder, or a Hub id.
        output_dir: the folder to write; it has all files of the other but for the weights that the graphs replace.
        precision: of the weights of matrix products: `float32`, or `int8` with activations quantized as they come.

    Raises:
        ConfigurationError: if nothing in the folder can be exported.
        MissingExtraError: if what exports is not installed.
        ModelFolderError: if files are damaged, or do not fit each other.
        SaveError: if the disk is full, or the folder cannot be written.
    """
    _require_exporter()
    place = local_model(name, {})
    with replace_files(output_dir) as aside:
        read_folder(place, lambda folder: _export(folder, name, aside, precision))


def _require_exporter() -> None:
    if torch.__version__ < _TORCH:  # compared as versions
        raise MissingExtraError(f"torch >= {_TORCH}", "export")
    for package in _NEEDED:
        try:
            import_module(package)
        except ImportError as err:
            raise MissingExtraError(package, "export") from err


def _export(folder: Path, name: str, aside: Path, precision: Precision) -> None:
    if holds_graphs(folder):
        raise ConfigurationError(f"{name} is exported already. Give the model that it was exported from.")
    has_model, retriever = holds_model(folder), folder / RETRIEVER_FOLDER
    if not has_model and not retriever.is_dir():
        raise ConfigurationError(f"{name} holds neither a model nor a retriever, so that there is nothing to export.")
    for file in files_of_model(folder):
        if matches(file, MODEL_FILES) and not matches(file, WEIGHTS):
            (aside / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / file, aside / file)
    if has_model:
        export_model(*load_model(str(folder)), aside, precision)
    if retriever.is_dir():
        model, tokenizer = LabelRetriever.load(retriever, num_labels=len(LabelSpace.load(folder))).encoder
        not_exported = cast("PreTrainedModel", model), cast("PreTrainedTokenizerBase", tokenizer)
        export_encoder(*not_exported, aside / RETRIEVER_FOLDER, precision)


def export_model(
    model: XLGenForConditionalGeneration, processor: XLGenProcessor, folder: Path, precision: Precision
) -> None:
    """Write the graphs of a model, its config and the weights that are in no graph.

    Args:
        model: the model; it becomes float32 and can be trained no more.
        processor: its processor.
        folder: the folder.
        precision: see [`export_folder`].

    Raises:
        ConfigurationError: if the backbone cannot be exported.
    """
    if model.config.is_causal:
        raise ConfigurationError(
            f"The backbone is decoder-only (type {model.config.backbone.model_type!r}); graphs are made of seq2seq "
            "models and of encoders."
        )
    config = deepcopy(model.config)
    config.tie_encoder_decoder = False
    config.save_pretrained(folder)
    _prepare(model.backbone)
    weights = model.float().state_dict().items()
    own = {name: value.numpy() for name, value in weights if not name.startswith("backbone.")}
    write_tensors(folder / WEIGHTS_FILE, own)
    graphs = write_export(folder, precision)
    paths = {name: graphs / f"{name}.onnx" for name in (ENCODER, CROSS, STEP)}
    _trace_encoder(model.get_encoder(), paths[ENCODER])
    _trace_decoder(model, paths[CROSS], paths[STEP])
    found = dry_run(model, processor, load_exported(XLGenForConditionalGeneration, folder, {}))
    _check(found.steps, model.config.backbone.model_type)
    if precision == "int8":
        quantize_graphs(paths.values())


def export_encoder(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, precision: Precision
) -> None:
    """Write the graph of a retriever's encoder.

    Args:
        encoder: the encoder; it can be trained no more.
        tokenizer: its tokenizer.
        folder: the folder, which has the tokenizer's files.
        precision: see [`export_folder`].

    Raises:
        ConfigurationError: if the encoder cannot be exported.
    """
    _prepare(encoder)
    facts = _facts(encoder, tokenizer, folder)
    path = write_export(folder, precision, facts) / f"{ENCODER}.onnx"
    _trace_encoder(encoder, path)
    ids, mask = _example_texts(encoder.config.vocab_size, _ROWS + 1, _LENGTH + 2)
    (computed,) = run_graph(Graph(path), ids, mask)
    with torch.no_grad():
        expected = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    _check(Difference.of(expected[mask > 0], computed[mask > 0]), encoder.config.model_type)
    if precision == "int8":
        quantize_graphs([path])


def _facts(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> EncoderFacts:
    """What [`EncoderFacts`] says; transformers reads the tokenizer where its file alone makes another one."""
    own = LoadedTokenizer(tokenizer)
    longest = int(min(longest_text(encoder.config, tokenizer), _LONGEST))
    is_file = (folder / TOKENIZER_FILE).is_file() and same_tokens(FileTokenizer.read(folder, own.padding_id), own)
    return {"longest": longest, "tokenizer": "tokenizers" if is_file else "transformers", "padding_id": own.padding_id}


def _prepare(model: PreTrainedModel) -> None:
    """Make a model fit to be traced: the other kinds of attention decide by sizes, which a graph leaves open."""
    model.float().eval().requires_grad_(False)
    model.set_attn_implementation("eager")


def _check(difference: Difference, family: str) -> None:
    if not difference.holds:
        raise ConfigurationError(
            f"The graphs of this {family!r} model differ from it by {difference.found:.2g} (rounding explains "
            f"{difference.allowed:.1g}), so it cannot be exported."
        )


# ------------------------------------------------------------------------------------------------ tracing


class _Encoder(nn.Module):
    """Token ids and mask, both `(B, S)`, to hidden states `(B, S, H)`."""

    def __init__(self, encoder: PreTrainedModel) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, return_dict=True
        ).last_hidden_state
        return hidden


class _Cross(nn.Module):
    """The decoder's memory `(B, S, H)` to keys and values of its layers' cross-attention, `(B, heads, S, width)`."""

    def __init__(self, model: XLGenForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(self, memory: torch.Tensor) -> list[torch.Tensor]:
        start = memory.new_full((memory.shape[0], 1), self.model.config.start_token, dtype=torch.long)
        mask = memory.new_ones(memory.shape[:2], dtype=torch.long)
        out = self.model.run_decoder(XLGenMemory(memory, mask), None, decoder_input_ids=start, use_cache=True)
        return tensors_of(_cache(out).cross_attention_cache)


class _Step(nn.Module):
    """One more token of each row: its logits `(N, 1, R)`, its state `(N, 1, H)`, and the extended keys and values."""

    def __init__(self, model: XLGenForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor, cross: list[torch.Tensor], own: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        cache = EncoderDecoderCache(filled_cache(own), filled_cache(cross))
        memory = mask.new_zeros((*mask.shape, self.model.config.hidden_size), dtype=torch.float32)  # read no more
        out = self.model.run_decoder(
            XLGenMemory(memory, mask),
            None,
            decoder_input_ids=tokens,
            use_cache=True,
            output_hidden_states=True,
            **cache_argument(cache),
        )
        return out.logits, out.decoder_hidden_states[-1], tensors_of(_cache(out).self_attention_cache)


def _cache(out: ModelOutput) -> EncoderDecoderCache:
    cache = cache_of(out)
    if not isinstance(cache, EncoderDecoderCache):
        raise TypeError(f"the decoder keeps a {type(cache).__name__}, where an EncoderDecoderCache is needed")
    return cache


def _example_texts(vocab_size: int, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, `(rows, length)`; the last text is shorter."""
    ids = torch.arange(rows * length).reshape(rows, length) % vocab_size
    mask = torch.ones_like(ids)
    mask[-1, length // 2 :] = 0
    return ids, mask


def _trace_encoder(encoder: PreTrainedModel, path: Path) -> None:
    arguments = _example_texts(encoder.config.vocab_size, _ROWS, _LENGTH)
    _trace(_Encoder(encoder), arguments, (_TEXTS, _TEXTS), ["input_ids", "attention_mask"], path)


def _trace_decoder(model: XLGenForConditionalGeneration, cross_path: Path, step_path: Path) -> None:
    ids, mask = _example_texts(model.config.vocab_size, _ROWS, _LENGTH)
    memory = torch.randn(_ROWS, _LENGTH, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # before anything is traced, since the first run prepares the output layer
        cross = _Cross(model)(memory)
    _trace(_Cross(model), (memory,), (_TEXTS,), ["memory"], cross_path)
    own = [part.new_zeros((*part.shape[:2], _TARGET, part.shape[3])) for part in cross]
    _trace(
        _Step(model),
        (ids[:, :1], mask, cross, own),
        ({0: _FREE}, _TEXTS, *([{0: _FREE, 2: _FREE}] * len(parts) for parts in (cross, own))),
        step_inputs(len(cross) // 2),
        step_path,
    )


def _trace(
    module: nn.Module, arguments: tuple[object, ...], free: tuple[object, ...], inputs: list[str], path: Path
) -> None:
    """Write what a module computes as a graph whose inputs have these names, and these sizes free."""
    parts = {id(part): part.numel() * part.element_size() for part in (*module.parameters(), *module.buffers())}
    if sum(parts.values()) > _LARGEST:
        raise ConfigurationError(
            f"The model has {sum(parts.values()) / 2**30:.1f} GiB of weights in float32; a graph holds less than 2."
        )
    try:
        # With gradients on, since the rows of the output layer are taken from its weights then, not from a cache.
        with _quiet(), torch.enable_grad():
            program = torch.onnx.export(
                module.eval(), arguments, dynamo=True, dynamic_shapes=free, input_names=inputs, verbose=False
            )
    except Exception as err:  # whatever a family's code does that cannot be traced
        reason: BaseException = err
        while reason.__cause__ is not None:
            reason = reason.__cause__
        answer = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
        raise ConfigurationError(f"torch.onnx cannot export this backbone: {answer}") from err
    assert program is not None
    program.save(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch says of itself: functions of its own that it will drop, packages that nothing here needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def quantize_graphs(paths: Iterable[Path]) -> None:
    """Turn the weights of matrix products into 8-bit integers, with a scale for each column.

    Args:
        paths: graphs in float32; they are replaced.
    """
    quantization = import_module("onnxruntime.quantization")
    for path in list(paths):
        folded = path.with_suffix(".folded.onnx")  # only products with constants are quantized: make all that can be
        quantization.quant_pre_process(path, folded, skip_symbolic_shape=True)
        quantization.quantize_dynamic(
            folded,
            path,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm"],
            extra_options={"MatMulConstBOnly": True},
        )
        folded.unlink()

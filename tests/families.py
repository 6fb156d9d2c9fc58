"""Tiny random checkpoints of every family of backbones, made in memory from configs, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tiny import ROWS, make_bart_tokenizer, make_bert_tokenizer, make_t5_tokenizer, make_xlnet_tokenizer
from transformers import MBartTokenizer, NllbTokenizer, PreTrainedTokenizerBase

__all__ = ["CAUSAL", "ENCODERS", "FAMILIES", "SEQ2SEQ", "make_checkpoint"]

_BART = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 128, "bos_token_id": 0, "pad_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
_T5 = {
    "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "pad_token_id": 0, "eos_token_id": 1,
    "decoder_start_token_id": 0,
}  # fmt: skip
_GEMMA = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0,
    "sliding_window": 4, "max_position_embeddings": 256, "query_pre_attn_scalar": 8,
}  # fmt: skip
_BERT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 128, "pad_token_id": 0,
}  # fmt: skip
_ROBERTA = {**_BERT, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
_VISION = {
    "model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------- tokenizers


def _pieces() -> list[tuple[str, float]]:
    words = sorted({word for row in ROWS for word in row["text"].split()})
    return [(piece, -3.0) for piece in (*(f"▁{word}" for word in words), "▁", *"abcdefghijklmnopqrstuvwxyz(),123")]


def make_mbart_tokenizer() -> PreTrainedTokenizerBase:
    """Frames texts as `X </s> en_XX`."""
    specials = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    return MBartTokenizer(vocab=[*specials, *_pieces()], src_lang="en_XX", tgt_lang="de_DE")


def make_nllb_tokenizer(**options: Any) -> PreTrainedTokenizerBase:
    """Frames texts as `eng_Latn X </s>`, or, with `legacy_behaviour=True`, as `X </s> eng_Latn`."""
    vocab = {piece: row for row, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", *(p for p, _ in _pieces())])}
    return NllbTokenizer(vocab=vocab, merges=[], src_lang="eng_Latn", tgt_lang="deu_Latn", **options)


# ---------------------------------------------------------------------------------------------------- families

Family = tuple[str, str, Callable[[], PreTrainedTokenizerBase], dict[str, Any]]
"""Prefix of the config's class, the model's class, tokenizer, fields of the config besides the vocabulary."""


def _gemma2(vocab_size: int) -> dict[str, Any]:
    text = {**_GEMMA, "vocab_size": vocab_size}
    image = {"image_token_index": vocab_size - 1, "eoi_token_index": vocab_size - 2, "boi_token_index": vocab_size - 3}
    return {
        "encoder": {"text_config": text, "vision_config": _VISION, "mm_tokens_per_image": 4, **image},
        "decoder": text, "image_token_index": vocab_size - 1,
    }  # fmt: skip


SEQ2SEQ: dict[str, Family] = {
    "t5": ("T5", "T5ForConditionalGeneration", make_t5_tokenizer, _T5),
    "t5-v1.1": (
        "T5", "T5ForConditionalGeneration", make_t5_tokenizer,
        {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "mt5": ("MT5", "MT5ForConditionalGeneration", make_t5_tokenizer, _T5),
    "umt5": ("UMT5", "UMT5ForConditionalGeneration", make_t5_tokenizer, _T5),
    "longt5": ("LongT5", "LongT5ForConditionalGeneration", make_t5_tokenizer, {**_T5, "local_radius": 7}),
    "longt5-tglobal": (
        "LongT5", "LongT5ForConditionalGeneration", make_t5_tokenizer,
        {**_T5, "local_radius": 7, "encoder_attention_type": "transient-global"},
    ),
    "switch": (
        "SwitchTransformers", "SwitchTransformersForConditionalGeneration", make_t5_tokenizer,
        {**_T5, "num_experts": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1,
         "num_decoder_layers": 2, "expert_capacity": 64},
    ),
    "t5gemma": (
        "T5Gemma", "T5GemmaForConditionalGeneration", make_bart_tokenizer, {"encoder": _GEMMA, "decoder": _GEMMA},
    ),
    "t5gemma2": ("T5Gemma2", "T5Gemma2ForConditionalGeneration", make_bart_tokenizer, {}),
    "bart": ("Bart", "BartForConditionalGeneration", make_bart_tokenizer, _BART),
    "mbart": (
        "MBart", "MBartForConditionalGeneration", make_mbart_tokenizer,
        {key: value for key, value in _BART.items() if key != "decoder_start_token_id"},
    ),
    "mbart50": ("MBart", "MBartForConditionalGeneration", make_mbart_tokenizer, _BART),
    "plbart": ("PLBart", "PLBartForConditionalGeneration", make_bart_tokenizer, _BART),
    "mvp": ("Mvp", "MvpForConditionalGeneration", make_bart_tokenizer, _BART),
    "led": (
        "LED", "LEDForConditionalGeneration", make_bart_tokenizer,
        {**_BART, "max_encoder_position_embeddings": 128, "max_decoder_position_embeddings": 128,
         "attention_window": 8},
    ),
    "pegasus": (
        "Pegasus", "PegasusForConditionalGeneration", make_t5_tokenizer,
        {**_BART, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "forced_eos_token_id": 1},
    ),
    "pegasus_x": (
        "PegasusX", "PegasusXForConditionalGeneration", make_t5_tokenizer,
        {**_BART, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "forced_eos_token_id": 1,
         "block_size": 8, "num_global_tokens": 4},
    ),
    "bigbird_pegasus": (
        "BigBirdPegasus", "BigBirdPegasusForConditionalGeneration", make_t5_tokenizer,
        {**_BART, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "block_size": 4,
         "num_random_blocks": 1},
    ),
    "marian": (
        "Marian", "MarianMTModel", make_t5_tokenizer,
        {**_BART, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "forced_eos_token_id": 1},
    ),
    "marian-separate": (
        "Marian", "MarianMTModel", make_t5_tokenizer,
        {**_BART, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
         "share_encoder_decoder_embeddings": False, "decoder_vocab_size": 40, "tie_word_embeddings": False},
    ),
    "m2m_100": ("M2M100", "M2M100ForConditionalGeneration", make_nllb_tokenizer, _BART),
    "nllb-legacy": (
        "M2M100", "M2M100ForConditionalGeneration", lambda: make_nllb_tokenizer(legacy_behaviour=True), _BART,
    ),
    "nllb-moe": (
        "NllbMoe", "NllbMoeForConditionalGeneration", make_nllb_tokenizer,
        {**_BART, "num_experts": 2, "expert_capacity": 64, "encoder_sparse_step": 2, "decoder_sparse_step": 2},
    ),
    "blenderbot": ("Blenderbot", "BlenderbotForConditionalGeneration", make_bart_tokenizer, _BART),
    "blenderbot-small": ("BlenderbotSmall", "BlenderbotSmallForConditionalGeneration", make_bart_tokenizer, _BART),
    "prophetnet": (
        "ProphetNet", "ProphetNetForConditionalGeneration", make_bert_tokenizer,
        {"hidden_size": 16, "encoder_ffn_dim": 32, "num_encoder_layers": 2, "num_encoder_attention_heads": 2,
         "decoder_ffn_dim": 32, "num_decoder_layers": 2, "num_decoder_attention_heads": 2, "ngram": 2,
         "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 3, "eos_token_id": 3,
         "decoder_start_token_id": 3},
    ),
    "fsmt": (
        "FSMT", "FSMTForConditionalGeneration", make_bart_tokenizer,
        {**_BART, "langs": ["en", "de"], "src_vocab_size": None, "tgt_vocab_size": None},
    ),
}  # fmt: skip

ENCODERS: dict[str, Family] = {
    "bert": ("Bert", "BertModel", make_bert_tokenizer, _BERT),
    "roberta": ("Roberta", "RobertaModel", make_bart_tokenizer, _ROBERTA),
    "xlm-roberta": ("XLMRoberta", "XLMRobertaModel", make_bart_tokenizer, _ROBERTA),
    "camembert": ("Camembert", "CamembertModel", make_bart_tokenizer, _ROBERTA),
    "electra": ("Electra", "ElectraModel", make_bert_tokenizer, {**_BERT, "embedding_size": 16}),
    "electra-narrow": ("Electra", "ElectraModel", make_bert_tokenizer, {**_BERT, "embedding_size": 8}),
    "albert": ("Albert", "AlbertModel", make_bert_tokenizer, {**_BERT, "embedding_size": 8}),
    "albert-wide": ("Albert", "AlbertModel", make_bert_tokenizer, {**_BERT, "embedding_size": 16}),
    "rembert": (
        "RemBert", "RemBertModel", make_bert_tokenizer,
        {**_BERT, "input_embedding_size": 8, "output_embedding_size": 24},
    ),
    "longformer": ("Longformer", "LongformerModel", make_bart_tokenizer, {**_ROBERTA, "attention_window": 8}),
    "big_bird": ("BigBird", "BigBirdModel", make_bert_tokenizer, {**_BERT, "block_size": 4, "num_random_blocks": 1}),
    "funnel": (
        "Funnel", "FunnelModel", make_bert_tokenizer,
        {"d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 32, "block_sizes": [1, 1], "num_decoder_layers": 1,
         "pad_token_id": 0},
    ),
    "distilbert": (
        "DistilBert", "DistilBertModel", make_bert_tokenizer,
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 128, "pad_token_id": 0},
    ),
    "mpnet": ("MPNet", "MPNetModel", make_bart_tokenizer, _ROBERTA),
    "deberta": ("Deberta", "DebertaModel", make_bert_tokenizer, _BERT),
    "deberta-v2": ("DebertaV2", "DebertaV2Model", make_bert_tokenizer, _BERT),
    "modernbert": (
        "ModernBert", "ModernBertModel", make_bert_tokenizer,
        {**_BERT, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
    ),
    "nomic_bert": ("NomicBert", "NomicBertModel", make_bert_tokenizer, {**_BERT, "head_dim": 8}),
    "eurobert": (
        "EuroBert", "EuroBertModel", make_bert_tokenizer,
        {**_BERT, "num_key_value_heads": 2, "bos_token_id": 2, "eos_token_id": 3},
    ),
    "xlm-roberta-xl": ("XLMRobertaXL", "XLMRobertaXLModel", make_bart_tokenizer, _ROBERTA),
    "roberta-prelayernorm": ("RobertaPreLayerNorm", "RobertaPreLayerNormModel", make_bart_tokenizer, _ROBERTA),
    "roformer": ("RoFormer", "RoFormerModel", make_bert_tokenizer, {**_BERT, "embedding_size": 16}),
    "nystromformer": (
        "Nystromformer", "NystromformerModel", make_bert_tokenizer,
        {**_BERT, "num_landmarks": 4, "segment_means_seq_len": 4},
    ),
    "squeezebert": ("SqueezeBert", "SqueezeBertModel", make_bert_tokenizer, {**_BERT, "embedding_size": 16}),
    "mobilebert": (
        "MobileBert", "MobileBertModel", make_bert_tokenizer,
        {**_BERT, "embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 1},
    ),
    "convbert": ("ConvBert", "ConvBertModel", make_bert_tokenizer, {**_BERT, "embedding_size": 16, "head_ratio": 1}),
    "ernie": ("Ernie", "ErnieModel", make_bert_tokenizer, _BERT),
    "megatron-bert": ("MegatronBert", "MegatronBertModel", make_bert_tokenizer, _BERT),
    "layoutlm": ("LayoutLM", "LayoutLMModel", make_bert_tokenizer, _BERT),
    "fnet": ("FNet", "FNetModel", make_bert_tokenizer, _BERT),
    "canine": ("Canine", "CanineModel", make_bert_tokenizer, _BERT),
    "xlm": ("XLM", "XLMModel", make_bert_tokenizer, {"emb_dim": 16, "n_layers": 2, "n_heads": 2, "pad_index": 0}),
    "xlnet": ("XLNet", "XLNetModel", make_xlnet_tokenizer, {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32}),
    "xmod": ("Xmod", "XmodModel", make_bart_tokenizer, {**_ROBERTA, "default_language": "en_XX"}),
    "t5-encoder": ("T5", "T5EncoderModel", make_t5_tokenizer, _T5),
}  # fmt: skip

_CAUSAL_SIZES = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

CAUSAL: dict[str, Family] = {
    "llama": ("Llama", "LlamaForCausalLM", make_bart_tokenizer, _CAUSAL_SIZES),
    "qwen2": ("Qwen2", "Qwen2ForCausalLM", make_bart_tokenizer, _CAUSAL_SIZES),
    "qwen3": ("Qwen3", "Qwen3ForCausalLM", make_bart_tokenizer, {**_CAUSAL_SIZES, "head_dim": 8}),
    "gemma": ("Gemma", "GemmaForCausalLM", make_bart_tokenizer, {**_CAUSAL_SIZES, "head_dim": 8}),
    "mistral": ("Mistral", "MistralForCausalLM", make_bart_tokenizer, _CAUSAL_SIZES),
    "gpt2": (
        "GPT2", "GPT2LMHeadModel", make_bart_tokenizer,
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128, "bos_token_id": 2, "eos_token_id": 2},
    ),
    "opt": (
        "OPT", "OPTForCausalLM", make_bart_tokenizer,
        {"hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "word_embed_proj_dim": 16},
    ),
    "bart-decoder": ("Bart", "BartForCausalLM", make_bart_tokenizer, _BART),
    "bert-decoder": ("Bert", "BertLMHeadModel", make_bert_tokenizer, {**_BERT, "is_decoder": True}),
}  # fmt: skip

FAMILIES = {**SEQ2SEQ, **ENCODERS, **CAUSAL}


def make_checkpoint(name: str, folder: Path) -> None:
    """Write a tiny random checkpoint of a family, with its tokenizer, into a folder."""
    prefix, model_class, make_tokenizer, options = FAMILIES[name]
    tokenizer = make_tokenizer()
    size = len(tokenizer)
    if name == "t5gemma2":
        options = _gemma2(size)
    elif name == "t5gemma":
        options = {part: {**sizes, "vocab_size": size} for part, sizes in options.items()}
    elif name == "fsmt":
        options = {**options, "src_vocab_size": size, "tgt_vocab_size": size}
    elif name == "marian-separate":
        options = {**options, "decoder_vocab_size": size - 8}
    sizes = {} if name in ("t5gemma2", "fsmt") else {"vocab_size": size}
    config = getattr(transformers, f"{prefix}Config")(**sizes, **options)
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1 and weight.std() < 0.1:  # at the usual start, what a layer reads hardly matters
                weight.mul_(0.2 / weight.std().clamp(min=1e-3))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

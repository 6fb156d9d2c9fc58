"""Settings of adapters: the methods of peft that an XLGen model can have, and what their settings may be.

One check for two moments: before an adapter is trained, and before it is loaded. What passes the first passes the
second. Settings come from files that nobody has looked at, so sizes have bounds, and no regular expression in them is
run: nobody could say how long it takes.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

from ..errors import ModelFolderError
from ..files.schema import (
    Check,
    Fields,
    boolean,
    choice,
    either,
    integer,
    list_of,
    mapping_of,
    number,
    optional,
    shown,
    string,
    strings,
)

__all__ = ["AdapterMethod", "AdapterSettings", "JSONObject", "as_saved", "check_settings", "check_sizes"]

JSONObject: TypeAlias = dict[str, object]
"""A parsed JSON object."""

_MOST_LAYERS = 10_000  # names in a list of them
_FACTOR = 1e6  # no adapter is larger than its base by more
_WIDEST = 100_000  # of a block of OFT
_MOST_TERMS = 100  # of a series that OFT sums
_WIDER = 16  # rank of VeRA, in widths of the base; it trains one number per rank
_PLAIN_PATTERN = re.compile(r"[\w.^$|-]+")  # a regular expression without repeats and groups

_NAMES = strings(max_length=_MOST_LAYERS)
_PATTERN = either(_NAMES, string())
_SCALE = optional(number(minimum=0, maximum=_FACTOR))
_SHARE = optional(number(minimum=0, below=1))
_FLAG = optional(boolean())
_RANK = integer(minimum=1)
_ROWS = list_of(integer(), unique=True)

# Which layers are adapted. Where a pattern says it, the names in the file of weights do.
_LAYERS: dict[str, Check] = {
    "target_modules": _PATTERN,
    "exclude_modules": optional(_PATTERN),
    "layers_to_transform": optional(either(integer(), list_of(integer()))),
    "layers_pattern": optional(_PATTERN),
    "modules_to_save": optional(_NAMES),
}
# Initialisations that do nothing to the base, and those whose change of it is made again from the base alone.
_INITS = ("gaussian", "orthogonal", "eva", "mica", "pissa", "olora")
# Initialisations that change the base by data or random numbers that nobody has when the adapter is loaded.
_NOT_REPEATABLE = ("corda", "loftq", "lora_ga", "pissa_niter_")
_WITHOUT_EFFECT = {
    "auto_mapping", "base_model_name_or_path", "eva_config", "inference_mode", "peft_type", "peft_version", "revision",
    "task_type",
}  # fmt: skip
_PROMPTS = {
    "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "PROMPT_TUNING",
}  # fmt: skip


@dataclass(frozen=True)
class AdapterMethod:
    """A method of peft.

    Attributes:
        config: name of its class of settings.
        part: what the names of its weights have after the name of the layer.
        taken: checks of the settings that change what an adapter computes.
        ranks: those of them that are ranks.
        widest: maximum rank, in widths of the base.
    """

    config: str
    part: str
    taken: dict[str, Check]
    ranks: tuple[str, ...] = ("r",)
    widest: int = 1


def _bias(part: str) -> Check:
    return optional(choice("none", "all", f"{part}only"))


_LORA: dict[str, Check] = {
    **_LAYERS,
    "r": _RANK,
    "lora_alpha": _SCALE,
    "lora_dropout": _SHARE,
    "bias": _bias("lora_"),
    "fan_in_fan_out": _FLAG,
    "trainable_token_indices": optional(either(_ROWS, mapping_of(_ROWS))),
    "init_lora_weights": optional(either(boolean(), choice(*_INITS))),
}
_LYCORIS: dict[str, Check] = {
    **_LAYERS,
    "r": _RANK,
    "alpha": _SCALE,
    "rank_dropout": _SHARE,
    "module_dropout": _SHARE,
    "rank_pattern": optional(mapping_of(_RANK)),
    "alpha_pattern": optional(mapping_of(_SCALE)),
    "init_weights": optional(either(boolean(), choice("lycoris"))),
}
_METHODS = {
    "LORA": AdapterMethod(
        "LoraConfig",
        "lora_",
        {
            **_LORA,
            "rank_pattern": optional(mapping_of(_RANK)),
            "alpha_pattern": optional(mapping_of(_SCALE)),
            "use_rslora": _FLAG,
            "use_dora": _FLAG,
        },
    ),
    "ADALORA": AdapterMethod(
        "AdaLoraConfig",
        "lora_",
        {
            **_LORA,
            "init_r": _RANK,
            "target_r": integer(minimum=0),
            "total_step": integer(minimum=1),
            "tinit": integer(minimum=0),
            "tfinal": integer(minimum=0),
            "deltaT": integer(minimum=1),
            "beta1": number(),
            "beta2": number(),
            "orth_reg_weight": number(minimum=0),
            "rank_pattern": optional(mapping_of(list_of(boolean()))),  # which ranks of a layer are left
        },
        ranks=("r", "init_r"),
    ),
    "IA3": AdapterMethod(
        "IA3Config",
        "ia3_",
        {**_LAYERS, "feedforward_modules": optional(_PATTERN), "fan_in_fan_out": _FLAG, "init_ia3_weights": _FLAG},
        ranks=(),
    ),
    "VERA": AdapterMethod(
        "VeraConfig",
        "vera_",
        {
            **_LAYERS,
            "r": _RANK,
            "vera_dropout": _SHARE,
            "d_initial": optional(number()),
            "projection_prng_key": optional(integer()),
            "save_projection": _FLAG,
            "bias": _bias("vera_"),
            "fan_in_fan_out": _FLAG,
            "init_weights": _FLAG,
        },
        widest=_WIDER,
    ),
    "LOHA": AdapterMethod("LoHaConfig", "hada_", _LYCORIS),
    "LOKR": AdapterMethod(
        "LoKrConfig",
        "lokr_",
        {
            **_LYCORIS,
            "decompose_both": _FLAG,
            "decompose_factor": optional(integer(minimum=-1)),
            "rank_dropout_scale": _FLAG,
        },
    ),
    "OFT": AdapterMethod(
        "OFTConfig",
        "oft_",
        {
            **_LAYERS,
            "r": optional(integer(minimum=0, maximum=_WIDEST)),
            "oft_block_size": optional(integer(minimum=0, maximum=_WIDEST)),
            "module_dropout": _SHARE,
            "bias": _bias("oft_"),
            "fan_in_fan_out": _FLAG,
            "init_weights": _FLAG,
            "coft": _FLAG,
            "eps": optional(number(minimum=0)),
            "block_share": _FLAG,
            "use_cayley_neumann": _FLAG,
            "num_cayley_neumann_terms": optional(integer(minimum=1, maximum=_MOST_TERMS)),
        },
        ranks=(),
    ),
}
_REQUIRED = ("target_modules", "r", "init_r")


@dataclass(frozen=True)
class AdapterSettings:
    """Settings of an adapter after the check.

    Attributes:
        peft_type: name of the method.
        method: the method.
        values: the settings that change what it computes; none is None.
    """

    peft_type: str
    method: AdapterMethod
    values: JSONObject

    @property
    def layers_by_pattern(self) -> bool:
        """Whether patterns say which layers are adapted."""
        patterns = ("exclude_modules", "layers_to_transform", "layers_pattern")
        texts = ("target_modules", "feedforward_modules")
        return any(self.values.get(name) for name in patterns) or any(
            isinstance(self.values.get(name), str) for name in texts
        )


def as_saved(config: object) -> JSONObject:
    """Settings of peft as its `adapter_config.json` will have them.

    Args:
        config: a `PeftConfig`.
    """
    content: JSONObject = json.loads(json.dumps(config.to_dict(), default=sorted))  # type: ignore[attr-defined]
    return content


def check_settings(peft: ModuleType, content: Mapping[str, object], where: str | Path) -> AdapterSettings:
    """Check the settings of an adapter; what peft has and XLGen does not count on is refused.

    Args:
        peft: the module.
        content: the settings, as `adapter_config.json` has them.
        where: the file or adapter, for messages.

    Raises:
        ModelFolderError: if the method is another one, a setting is of a wrong type or out of range, or is one whose
            effect is not known to be the same after loading.
    """
    init = content.get("init_lora_weights")
    if isinstance(init, str) and init.startswith(_NOT_REPEATABLE):
        raise ModelFolderError(
            f"{where}: init_lora_weights={shown(init)} has changed the base in a way that cannot be repeated: by data "
            "or by random numbers. Save the adapter with `path_initial_model_for_weight_conversion` of peft, which "
            "makes a plain one of it."
        )
    kind, method = _method(content.get("peft_type"), where)
    form = Fields[JSONObject](
        dict(method.taken), optional=[name for name in method.taken if name not in _REQUIRED], others=True
    )
    form.check(dict(content), where)
    usual = _defaults(getattr(peft, method.config))
    for name, value in content.items():
        unusual = value is not None and value != usual.get(name) and value not in ({}, [])
        if unusual and name not in method.taken and name not in _WITHOUT_EFFECT:
            raise ModelFolderError(
                f"{where}: {name}={shown(value)} is not what XLGen's adapters have; make one without it."
            )
    _check_patterns(content, where)
    taken = {name: value for name, value in content.items() if name in method.taken and value is not None}
    return AdapterSettings(kind, method, taken)


def _method(kind: object, where: str | Path) -> tuple[str, AdapterMethod]:
    if isinstance(kind, str) and kind in _METHODS:
        return kind, _METHODS[kind]
    known = f"choose one of {sorted(_METHODS)}."
    if isinstance(kind, str) and kind in _PROMPTS:
        raise ModelFolderError(
            f"{where}: peft_type={shown(kind)} puts learned vectors in front of the text or into the cache of the "
            f"decoder, where the search for label sets has its own inputs, so predictions would not read them; {known}"
        )
    raise ModelFolderError(
        f"{where}: peft_type={shown(kind)} is not a method that is known to load with the same predictions; {known}"
    )


def _defaults(config_class: type) -> JSONObject:
    """The value that each setting has where nobody gives one."""
    return {
        field.name: field.default if field.default is not dataclasses.MISSING else None
        for field in dataclasses.fields(config_class)
    }


def _check_patterns(content: Mapping[str, object], where: str | Path) -> None:
    """Refuse names of layers with ranks or scales of their own that could take for ever to match: peft runs them."""
    for setting in ("rank_pattern", "alpha_pattern"):
        patterns = content.get(setting)
        for name in patterns if isinstance(patterns, dict) else ():
            if not _PLAIN_PATTERN.fullmatch(name):
                raise ModelFolderError(
                    f"{where}: {setting} has {shown(name)}, a regular expression with repeats or groups, which is not "
                    "run. Give names of layers, or their ends, such as 'layer.0.SelfAttention.q'."
                )


def check_sizes(settings: AdapterSettings, width: int, vocab_size: int, where: str | Path) -> None:
    """Check that an adapter asks for no more than its base can have.

    Args:
        settings: the adapter's.
        width: the base's.
        vocab_size: the base's.
        where: the file or adapter, for messages.

    Raises:
        ModelFolderError: if a rank is above the base's width, or a row outside of its vocabulary.
    """
    values, most = settings.values, settings.method.widest * width
    ranks: dict[str, object] = {name: values[name] for name in settings.method.ranks if name in values}
    own = values.get("rank_pattern")
    if isinstance(own, dict) and settings.peft_type != "ADALORA":
        ranks |= {f"rank_pattern[{shown(name)}]": rank for name, rank in own.items()}
    for name, rank in ranks.items():
        if isinstance(rank, int) and rank > most:
            by = "" if settings.method.widest == 1 else f"{settings.method.widest} times "
            raise ModelFolderError(f"{where}: {name}={rank}, above {by}the base's width of {width}.")
    rows = values.get("trainable_token_indices")
    by_layer: dict[str, list[int]] = rows if isinstance(rows, dict) else {}
    if isinstance(rows, list):
        by_layer = {"the embedding matrix": rows}
    for name, numbers in by_layer.items():
        outside = [row for row in numbers if not 0 <= row < vocab_size]
        if outside:
            raise ModelFolderError(
                f"{where}: row {outside[0]} of {name} lies outside of the base's vocabulary of {vocab_size}."
            )

"""`xlgen serve`: models behind HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..serving.settings import ServingSettings
from .answering import SERVER_PACKAGES, check_packages, load_on_device, web_address
from .console import print_message
from .options import CpuThreads, Device, DType, Host, Port, PredictWith, UsageProblem, limit_threads, takes_settings

__all__ = ["serve"]


@takes_settings(ServingSettings)
def serve(
    model: Annotated[
        list[str],
        typer.Option(
            help="Folder of a model, adapter, hybrid, index or label trees, or its Hub id; ID=NAME chooses what"
            " requests call it. Several are served side by side, and the first one answers by default."
        ),
    ],
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File with API keys, one per line, of which requests must carry one. The environment variable"
            " XLGEN_API_KEY gives one too.",
            show_default="none is needed",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Web pages whose scripts may call (CORS), such as https://example.org.", show_default="none"
        ),
    ] = None,
    corrections_file: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[ID=]FILE",
            help="File (.jsonl) to which `learn` appends training rows, for `xlgen update --add-rows`; one for each"
            " model that takes corrections.",
            show_default="learn is refused",
        ),
    ] = None,
    predict_with: PredictWith = None,
    device: Device = None,
    dtype: DType = None,
    cpu_threads: CpuThreads = None,
    **limits: object,
) -> None:
    """Serve models over HTTP: labels for texts, scores, Annif's interface; see /docs for all of it.

    SIGTERM and Ctrl-C end the server when it has answered what it was asked. A model whose folder changes is loaded
    again while the former one goes on answering.

    \b
    xlgen serve --model my-index
    curl localhost:8000/v1/predict -H "Content-Type: application/json" -d '{"text": "Alpine cheese", "top_k": 3}'
    """  # noqa: D301  \b keeps the lines of the example apart
    check_packages("serve", SERVER_PACKAGES)
    from ..serving.app import create_app, open_socket, run_server
    from ..serving.guard import read_api_keys
    from ..serving.service import Service, named_models
    from ..settings import from_values

    settings = from_values(ServingSettings, limits)
    models = named_models(model)
    corrections = _files_of_models(corrections_file or [], list(models))
    keys = read_api_keys(api_key_file)
    listener = open_socket(host, port)  # before the models, which take their time
    limit_threads(cpu_threads)
    load = partial(load_on_device, device=device, predict_with=predict_with, dtype=dtype)
    service = Service.load(models, load, settings, corrections)
    app = create_app(service, api_keys=keys, allow_origins=allow_origin or [])
    place = web_address(host, listener)
    run_server(
        app,
        listener,
        timeout=settings.timeout,
        started=lambda: print_message(f"serving {', '.join(models)} at {place}, described at {place}/docs"),
    )
    print_message("stopped.")


def _files_of_models(given: Sequence[str], models: Sequence[str]) -> dict[str, str]:
    """Files by the id of their model, given as `ID=FILE`, or as the file alone where there is one model."""
    files: dict[str, str] = {}
    for one in given:
        model_id, equals, path = one.partition("=")
        if not equals or model_id not in models:
            if len(models) > 1:
                raise UsageProblem(f"--corrections-file {one}: say whose, as ID=FILE with one of {', '.join(models)}.")
            model_id, path = models[0], one
        if model_id in files:
            raise UsageProblem(f"--corrections-file names two files for the model {model_id!r}; give one.")
        files[model_id] = path
    return files

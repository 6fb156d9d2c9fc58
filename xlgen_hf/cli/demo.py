"""`xlgen demo`: a page in the browser to try models on."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..serving.settings import ServingSettings
from .answering import SERVER_PACKAGES, check_packages, load_on_device, web_address
from .console import print_message
from .options import CpuThreads, Device, DType, Host, Port, limit_threads, takes_settings

__all__ = ["demo"]


@takes_settings(ServingSettings, leave_out=("max_texts", "max_body_mb"))
def demo(
    model: Annotated[
        list[str],
        typer.Option(
            help="Folder of a model, adapter, hybrid, index or label trees, or its Hub id; ID=NAME chooses what the"
            " page calls it. Several answer side by side."
        ),
    ],
    host: Host = "127.0.0.1",
    port: Port = 7860,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Labels for your text",
    corrections: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File (.jsonl) to which labels that people accept are appended as training rows, for `xlgen update"
            " --add-rows`.",
            show_default="the page has no buttons for that",
        ),
    ] = None,
    max_file_mb: Annotated[int, typer.Option(min=1, help="Maximum size of a file, in megabytes.")] = 20,
    device: Device = None,
    dtype: DType = None,
    cpu_threads: CpuThreads = None,
    **limits: object,
) -> None:
    """Open a page in the browser: paste a text or a file, read its labels and what speaks for each of them.

    The page loads nothing from other servers, and keeps no text, unless --corrections names a file.

    \b
    xlgen demo --model my-index
    xlgen demo --model my-model --model my-index --corrections corrections.jsonl
    """  # noqa: D301  \b keeps the lines of the example apart
    check_packages("demo", (*SERVER_PACKAGES, "gradio"))
    from transformers.utils import logging

    from ..demo.app import create_demo, end_streams
    from ..demo.choices import example_texts
    from ..demo.page import Page
    from ..serving.app import open_socket, run_server
    from ..serving.corrections import CorrectionsFile
    from ..serving.service import Service, named_models
    from ..settings import from_values

    logging.disable_progress_bar()  # of weights that load: the address is all there is to see
    settings = from_values(ServingSettings, {**limits, "max_body_mb": max_file_mb})
    models = named_models(model)
    rows = None if corrections is None else CorrectionsFile(corrections)
    listener = open_socket(host, port)  # before the models, which take their time
    limit_threads(cpu_threads)
    service = Service.load(models, partial(load_on_device, device=device, dtype=dtype), settings)
    examples = example_texts(models.values())
    place = web_address(host, listener)
    with tempfile.TemporaryDirectory() as uploads:
        app = create_demo(Page(service, title, Path(uploads), examples, rows))
        run_server(
            app,
            listener,
            timeout=settings.timeout,
            started=lambda: print_message(f"open {place} in a browser"),
            ending=lambda: end_streams(app),
        )

"""The page before the models of a service, as one ASGI application."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..serving.app import create_app
from .page import Page, build_page

__all__ = ["create_demo", "end_streams"]

_HERE = Path(__file__).parent
_DOCUMENTATION = "/docs"  # of the REST interface, whose scripts come from elsewhere
# Browsers load nothing from elsewhere, whatever a text or a label holds. Gradio compiles templates and styles inline.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'"
)


def create_demo(page: Page) -> FastAPI:
    """The application of a page; it answers REST requests too, as `xlgen serve` does.

    Args:
        page: the page.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(page.uploads)
    logging.getLogger("xlgen_hf.serving.guard").setLevel(logging.WARNING)  # a page is a hundred requests
    app = create_app(page.service)
    app.add_middleware(_Policy)
    blocks = build_page(page)
    # Gradio checks which files a request names only where it has started the server itself, by its `launch`.
    blocks.has_launched = True
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        theme=_theme(),
        css_paths=[_HERE / "page.css"],
        head=f"<script>{(_HERE / 'page.js').read_text(encoding='utf-8')}</script>",
        footer_links=[],
        allowed_paths=[],
        max_file_size=page.service.settings.max_body_mb * 1_000_000,
        show_error=False,
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
    )


def end_streams(app: FastAPI) -> None:
    """End the answer that each open page waits for as long as it is open; a server that ends would wait for it too.

    Args:
        app: the application of a page.
    """
    for route in app.routes:
        if isinstance(mounted := getattr(route, "app", None), gr.routes.App):
            mounted.stop_event.set()


def _theme() -> gr.themes.Base:
    """Gradio's own, with fonts that come with it, and with small print that has contrast enough."""
    fonts = [gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"]
    return gr.themes.Default(primary_hue="blue", font=fonts).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_700",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )


class _Policy:
    """ASGI middleware that tells browsers what a page may load."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with further headers."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                if scope["path"] != _DOCUMENTATION:
                    headers["Content-Security-Policy"] = _POLICY
            await send(message)

        await self._app(scope, receive, sending)

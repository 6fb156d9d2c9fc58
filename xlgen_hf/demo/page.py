"""The page: its parts, and what happens when somebody uses them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from ..errors import XLGenError
from ..serving.corrections import CorrectionsFile
from ..serving.service import Service
from .asking import Question, ask
from .choices import find_concepts, find_labels, has_hierarchy
from .corrections import correction, saved_message
from .documents import read_document, readable_endings
from .rendering import escape, framed, isolated, notice, render_answers

__all__ = ["Page", "build_page"]

_OWN, _CHOSEN = "as the model decides", "by number and score"
_OFFERED = 30  # labels that a list offers at once
_READERS = 2  # files that are read at the same time
_FORGET = 3600  # seconds after which files of those who left are forgotten
_NO_TEXT = "There is no text. Paste one, or open a file, then press “Predict”."


@dataclass(frozen=True)
class Page:
    """What a page is made of.

    Attributes:
        service: the models.
        title: heading.
        uploads: an empty folder for the files that people bring; no other file is read or given out.
        examples: texts to try.
        corrections: where accepted labels go; labels cannot be accepted or rejected if None.
    """

    service: Service
    title: str
    uploads: Path
    examples: Sequence[str] = ()
    corrections: CorrectionsFile | None = None

    async def read(self, path: str, text: str) -> tuple[str, str]:
        """The text of a file that was uploaded, and a message about it; the file is removed.

        Args:
            path: where it is.
            text: the text so far, which stays where the file cannot be read.
        """
        file = Path(path).resolve()
        if not file.is_relative_to(self.uploads.resolve()):  # a request may name any path
            return text, notice("Only a file that was just opened on this page is read.", "alert")
        try:
            found = await asyncio.to_thread(read_document, file, self.service.settings.max_characters)
        except XLGenError as err:
            return text, framed(f"{isolated(file.name)}: {escape(err)}", "alert")
        finally:
            file.unlink(missing_ok=True)
        kept = "" if found.is_whole else f" Only its first {len(found.text):,} characters were taken."
        return found.text, framed(f"{isolated(file.name)} was read.{kept}")

    async def predict(
        self,
        text: str | None,
        how_many: str,
        number: float,
        threshold: float,
        allow: Sequence[str] | None,
        branch: Sequence[str] | None,
        new_labels: str | None,
        abstain_below: float,
    ) -> tuple[str, str]:
        """The answers of all models as HTML, and the text that they are about; "" if there is nothing to correct."""
        text = (text or "").encode(errors="replace").decode()  # a browser may send halves of characters
        if not text.strip():
            return notice(_NO_TEXT, "alert"), ""
        question = Question(
            text,
            number=int(number) if how_many == _CHOSEN else None,
            threshold=threshold,
            allow=tuple(allow or ()),
            branch=tuple(branch or ()),
            new_labels=tuple(line.strip() for line in (new_labels or "").splitlines() if line.strip()),
            abstain_below=abstain_below,
        )
        answers = await ask(self.service, question)
        has_labels = any(one.prediction is not None for one in answers)
        return render_answers(text, answers, review=self.corrections is not None), text if has_labels else ""

    async def predict_to_correct(self, asked: str, *given: Any) -> tuple[str, str, Any, str]:
        """What [`Page.predict`] gives, the labels that are missing, and no message: an older answer was saved.

        Args:
            asked: the text of the answers so far; labels that it lacked are not those of another text.
            given: what [`Page.predict`] takes.
        """
        html, text = await self.predict(*given)
        return html, text, gr.skip() if text == asked else [], ""

    async def save(self, text: str, missing: Sequence[str] | None, decisions: str) -> str:
        """Write the accepted labels of a text, and those that it lacked, to the file; a message about it.

        Args:
            text: the text that was asked about.
            missing: labels that were added.
            decisions: JSON of `accept` or `reject` by label, as `page.js` gives them.
        """
        if self.corrections is None:
            return notice("This page takes no corrections.", "alert")
        try:
            row = correction(text, missing or (), decisions)
            await asyncio.to_thread(self.corrections.append, [row])
        except XLGenError as err:
            return notice(str(err), "alert")
        return framed(saved_message(row, self.service))


def build_page(page: Page) -> gr.Blocks:
    """Lay a page out.

    Args:
        page: what it is made of.
    """
    with gr.Blocks(title=page.title, analytics_enabled=False, delete_cache=(_FORGET, _FORGET)) as blocks:
        gr.HTML(_head(page), elem_classes="xl-head", js_on_load=None)
        asked = gr.Textbox("", visible=False)  # the browser keeps it: the server would forget it before it is saved
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                text, options, button = _input_column(page)
            with gr.Column(scale=3, min_width=300):
                answers = gr.HTML(elem_classes="xl", elem_id="xl-answers", js_on_load=None, padding=False)
                panel = [] if page.corrections is None else _correction_panel(page, asked)
        gr.on(
            [button.click],
            page.predict_to_correct if panel else page.predict,
            [*([asked] if panel else []), text, *options],
            [answers, asked, *panel],
            api_visibility="private",
            concurrency_limit=page.service.settings.max_requests,
            show_progress="minimal",
            show_progress_on=answers,
            scroll_to_output=True,
        )
    return blocks


def _head(page: Page) -> str:
    shown = []
    for model in page.service.models.values():
        size = len(model.current.predictor.label_space)
        shown.append(f"{isolated(model.id)}: {size:,} label{'s' if size > 1 else ''}")
    return f"<h1>{isolated(page.title)}</h1><p>{'; '.join(shown)}</p>"


# ---------------------------------------------------------------------------------------------------- input


def _input_column(page: Page) -> tuple[gr.Textbox, list[gr.components.Component], gr.Button]:
    """The text, the options and the button."""
    text = gr.Textbox(label="Text", lines=8, max_lines=20, placeholder="Paste a text, or open a file.")
    with gr.Row():
        button = gr.Button("Predict", variant="primary")
        endings = readable_endings()
        upload = gr.UploadButton(f"Open {' or '.join(endings)}", file_types=endings)
    status = gr.HTML(elem_classes="xl", js_on_load=None)
    upload.upload(
        page.read,
        [upload, text],
        [text, status],
        api_visibility="private",
        concurrency_limit=_READERS,
        show_progress="minimal",
    )
    if page.examples:
        gr.Examples([[one] for one in page.examples], [text], label="Examples", api_visibility="private")
    with gr.Accordion("Options", open=False):
        options = _options(page)
    return text, options, button


def _options(page: Page) -> list[gr.components.Component]:
    """The options, in the order in which [`Page.predict`] takes them."""
    service = page.service
    most = min(
        service.settings.max_top_k, max(len(one.current.predictor.label_space) for one in service.models.values())
    )
    how_many = gr.Radio([_OWN, _CHOSEN], value=_OWN, label="How many labels")
    number = gr.Slider(1, max(most, 2), value=min(5, most), step=1, label="Number of labels, at most")
    threshold = gr.Slider(0, 1, value=0, step=0.01, label="Lowest score of a label")
    for slider in (number, threshold):
        slider.input(None, None, how_many, js=f"() => {json.dumps(_CHOSEN)}", api_visibility="private")
    allow = _search_box("Only these labels", "Type to search; all labels if empty.", partial(find_labels, service))
    branch = _search_box(
        "Only below these concepts",
        "Type to search; every concept if empty.",
        partial(find_concepts, service),
        visible=has_hierarchy(service),
    )
    new_labels = gr.Textbox(
        label="New labels",
        lines=2,
        info="One name per line; they are labels for your question alone, without training.",
    )
    estimates = any(one.current.predictor.score_model.confidence is not None for one in service.models.values())
    abstain = gr.Slider(
        0, 1, value=0, step=0.01, visible=estimates,
        label="Say that a person should look, if the expected F1 is below",
    )  # fmt: skip
    return [how_many, number, threshold, allow, branch, new_labels, abstain]


def _search_box(label: str, info: str, find: Callable[[str, int], list[str]], *, visible: bool = True) -> gr.Dropdown:
    """A list of which several entries can be chosen, and which offers what is like the typed letters.

    They are read from the page when they are sent. What Gradio tells of a key is that of an earlier one where several
    were pressed during a search: `always_last` repeats the first event.
    """
    place, typed = f"xl-{label.lower().replace(' ', '-')}", gr.Textbox(visible=False)
    box = gr.Dropdown(
        find("", _OFFERED),
        value=[],
        multiselect=True,
        allow_custom_value=True,
        label=label,
        info=info,
        visible=visible,
        elem_id=place,
    )

    async def offer(chosen: list[str] | None, letters: str) -> gr.Dropdown:
        found = await asyncio.to_thread(find, letters, _OFFERED)
        return gr.Dropdown(choices=list(dict.fromkeys([*(chosen or []), *found])))

    box.key_up(
        offer, [box, typed], box, js=f"(chosen) => [chosen, document.querySelector('#{place} input')?.value ?? '']",
        api_visibility="private", show_progress="hidden", trigger_mode="always_last", concurrency_limit=None,
    )  # fmt: skip
    return box


# ---------------------------------------------------------------------------------------------------- corrections


def _correction_panel(page: Page, asked: gr.Textbox) -> list[gr.components.Component]:
    """What adds missing labels, and saves those that were accepted; the list of the missing, and the message.

    Saving leaves the list as it is, like the decisions: of equal texts the last row counts, so a second one needs all.
    """
    missing = _search_box(
        "Labels that are missing",
        "Type to search; Enter takes a name that is not a label yet.",
        partial(find_labels, page.service),
    )
    with gr.Row():
        rest = gr.Button("Accept the rest")
        save = gr.Button("Save the accepted labels", variant="primary")
    decisions = gr.Textbox(visible=False)
    status = gr.HTML(elem_classes="xl", js_on_load=None)
    rest.click(None, js="() => window.xlgenAcceptRest()", api_visibility="private")
    save.click(
        page.save,
        [asked, missing, decisions],
        status,
        js="(asked, missing) => [asked, missing, window.xlgenDecisions()]",
        api_visibility="private",
    )
    return [missing, status]

// The page of `xlgen demo`: marks of the label that somebody looks at, and what was accepted and rejected.
(() => {
  const choices = () => [...document.querySelectorAll(".xl-choice input")];

  const show = (card) => {
    for (const mark of document.querySelectorAll(".xl-text mark.xl-strong")) mark.classList.remove("xl-strong");
    if (!card) return;
    for (const mark of card.closest(".xl-answer").querySelectorAll(".xl-text mark"))
      mark.classList.toggle("xl-strong", mark.dataset.places.split(" ").includes(card.dataset.place));
  };
  // Marks stay where nobody looks at a label, so that one can scroll the text to them. They are those of the label that
  // was clicked, if one was: on the way to the text are other labels.
  let last, clicked;
  const look = ({ target, type }) => {
    const card = target.closest?.(".xl-label");
    if (card) last = card;
    if (card && type === "click") clicked = card;
    show(card ?? (clicked?.isConnected ? clicked : last));
  };
  for (const kind of ["mouseover", "focusin", "click"]) document.addEventListener(kind, look);

  // The same label of another model gets the same decision.
  document.addEventListener("change", ({ target }) => {
    if (!target.matches?.(".xl-choice input")) return;
    for (const other of choices())
      if (other.value === target.value && other.dataset.label === target.dataset.label) other.checked = true;
  });

  window.xlgenDecisions = () =>
    JSON.stringify(Object.fromEntries(choices().filter((one) => one.checked).map((one) => [one.dataset.label, one.value])));

  window.xlgenAcceptRest = () => {
    const decided = new Set(choices().filter((one) => one.checked).map((one) => one.dataset.label));
    for (const one of choices())
      if (one.value === "accept" && !decided.has(one.dataset.label)) one.checked = true;
  };
})();

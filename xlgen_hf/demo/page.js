// The page of `xlgen demo`: marks of the label that somebody looks at, and what was accepted and rejected.
(() => {
  const choices = () => [...document.querySelectorAll(".xl-choice input")];

  const show = (card) => {
    for (const mark of document.querySelectorAll(".xl-text mark.xl-strong")) mark.classList.remove("xl-strong");
    if (!card) return;
    for (const mark of card.closest(".xl-answer").querySelectorAll(".xl-text mark"))
      mark.classList.toggle("xl-strong", mark.dataset.places.split(" ").includes(card.dataset.place));
  };
  for (const kind of ["mouseover", "focusin"])
    document.addEventListener(kind, (event) => show(event.target.closest?.(".xl-label")));

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

// Labelling by keyboard: keys press the buttons of the page, and the field offers the labels that there are. Without this
// file every step works by its button.
"use strict";

let busy = false;

const typing = (element) => element instanceof HTMLInputElement && element.type !== "hidden";

document.addEventListener("submit", (event) => {
  if (busy) event.preventDefault();  // one press, one decision
  busy = true;
});
window.addEventListener("pageshow", () => { busy = false; });

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || typing(event.target)) return;
  if (event.key === "t") {
    event.preventDefault();
    document.getElementById("label")?.focus();
    return;
  }
  if (event.key === "Enter" && event.target instanceof HTMLElement && event.target.closest("a, button")) return;
  const named = /^[1-9]$/.test(event.key) ? `button[data-digit="${event.key}"]` : `button[data-key="${CSS.escape(event.key)}"]`;
  const button = document.querySelector(`${named}:not([disabled])`);
  if (button) { event.preventDefault(); button.click(); }
});

// --- the field that completes -------------------------------------------------------------------------------------------

const field = document.getElementById("label"), offers = document.getElementById("offers");

if (field) {
  const folded = (text) => text.toLowerCase();
  let names = [], at = 0;
  fetch(document.querySelector(".desk").dataset.names).then((answer) => answer.json()).then((all) => { names = all; offer(); });

  const options = () => [...offers.querySelectorAll("li")];
  const mark = (place) => {
    const all = options();
    if (!all.length) return;
    at = (place + all.length) % all.length;
    all.forEach((one, number) => one.setAttribute("aria-selected", String(number === at)));
    all[at].scrollIntoView({ block: "nearest" });
    field.setAttribute("aria-activedescendant", all[at].id);
  };
  // Whole, then by their beginning in alphabetical order, then by what they hold; and last what was typed, if it is new.
  const offer = () => {
    const text = folded(field.value.trim());
    const begins = text ? names.filter((one) => folded(one).startsWith(text)) : [];
    begins.sort((a, b) => (folded(b) === text) - (folded(a) === text));
    const holds = text ? names.filter((one) => !folded(one).startsWith(text) && folded(one).includes(text)) : [];
    const shown = [...begins, ...holds].slice(0, 8).map((one) => [one, one]);
    if (text && !names.some((one) => folded(one) === text)) shown.push([field.value.trim(), `New label: ${field.value.trim()}`]);
    offers.replaceChildren(...shown.map(([value, words], number) => {
      const option = document.createElement("li");
      option.id = `offer-${number}`;
      option.setAttribute("role", "option");
      option.dataset.value = value;
      option.textContent = words;
      option.addEventListener("pointerdown", (event) => { event.preventDefault(); choose(value); });
      return option;
    }));
    offers.hidden = !shown.length;
    field.setAttribute("aria-expanded", String(Boolean(shown.length)));
    if (shown.length) mark(0); else field.removeAttribute("aria-activedescendant");
  };
  const choose = (value) => { field.value = value; document.getElementById("typed").requestSubmit(); };

  field.addEventListener("input", offer);
  field.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); mark(at + (event.key === "ArrowDown" ? 1 : -1)); }
    else if (event.key === "Enter") {
      event.preventDefault();
      const chosen = options()[at];
      if (chosen) choose(chosen.dataset.value);
    } else if (event.key === "Escape") { field.value = ""; offer(); field.blur(); }
  });
}

"use strict";
const filters = document.getElementById("filters");
const cards = [...document.querySelectorAll(".card")];
const matches = document.getElementById("matches");
const nothing = document.getElementById("nothing");
const plain = (text) => text.normalize("NFKC").toLowerCase();
const texts = new Map();

function textOf(card) {
  if (!texts.has(card)) texts.set(card, plain(card.textContent));
  return texts.get(card);
}

function apply() {
  const wanted = new FormData(filters);
  const words = plain(wanted.get("text")).split(/\s+/).filter(Boolean);
  const choices = [...wanted].filter(([name, value]) => name !== "text" && value);
  let shown = 0;
  for (const card of cards) {
    const fits = choices.every(([name, value]) => card.dataset[name] === value)
      && words.every((word) => textOf(card).includes(word));
    card.hidden = !fits;
    shown += fits;
  }
  const all = shown === cards.length;
  matches.textContent = all ? "" : `${shown.toLocaleString("en")} of ${cards.length.toLocaleString("en")}`;
  nothing.hidden = shown > 0;
}

filters.hidden = false;
filters.addEventListener("input", apply);
filters.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("all").addEventListener("click", () => {
  filters.reset();
  apply();
});
apply();

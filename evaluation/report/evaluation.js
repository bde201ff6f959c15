"use strict";
const filters = document.getElementById("filters");
const list = document.getElementById("scene-list");
const cards = [...list.children];
const matches = document.getElementById("matches");
const plain = (text) => text.normalize("NFKC").toLowerCase();
const texts = new Map(cards.map((card) => [card, plain(card.textContent)]));
const last = (text, sign) => (text === "" ? Infinity : sign * Number(text));

const orders = {
  difference: (card) => last(card.dataset.difference, -1),
  number: () => 0,
  best: (card, model) => last(card.dataset.means.split(",")[model], -1),
  worst: (card, model) => last(card.dataset.means.split(",")[model], 1),
};
const kinds = {
  "": () => true,
  differ: (card) => Number(card.dataset.difference) > 0,
  missing: (card) => card.dataset.missing === "yes",
};

function apply() {
  const wanted = new FormData(filters);
  const words = plain(wanted.get("text")).split(/\s+/).filter(Boolean);
  const [order, model] = wanted.get("by").split(" ");
  const rank = (card) => orders[order](card, model);
  const compare = (one, other) => (rank(one) === rank(other) ? 0 : rank(one) - rank(other)) || one.dataset.number - other.dataset.number;
  let shown = 0;
  for (const card of cards.sort(compare)) {
    const fits = kinds[wanted.get("which")](card) && words.every((word) => texts.get(card).includes(word));
    card.hidden = !fits;
    shown += fits;
  }
  list.replaceChildren(...cards);
  matches.textContent = shown === cards.length ? "" : `${shown.toLocaleString("en")} of ${cards.length.toLocaleString("en")}`;
  document.getElementById("nothing").hidden = shown > 0;
}

filters.hidden = false;
filters.addEventListener("input", apply);
filters.addEventListener("submit", (event) => event.preventDefault());

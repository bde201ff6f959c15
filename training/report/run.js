"use strict";
const missingLast = (value) => (value === "" ? -Infinity : Number(value));

for (const form of document.querySelectorAll(".sort")) {
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    const by = new FormData(form).get("by");
    const ascending = by === "number";
    for (const list of form.closest("section").querySelectorAll(".candidates")) {
      const cards = [...list.children].sort((one, other) =>
        (missingLast(other.dataset[by]) - missingLast(one.dataset[by])) * (ascending ? -1 : 1)
        || Number(one.dataset.number) - Number(other.dataset.number));
      list.replaceChildren(...cards);
    }
  });
}

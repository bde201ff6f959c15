"use strict";
const figure = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const spell = (value) => (value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(2) : figure.format(value));

for (const chart of document.querySelectorAll(".chart svg")) {
  const lines = JSON.parse(chart.dataset.lines);
  const [left, right] = chart.dataset.box.split(" ").map(Number);
  const [low, high] = chart.dataset.range.split(" ").map(Number);
  const guide = chart.querySelector(".guide");
  const reading = chart.closest("figure").querySelector(".reading");
  const steps = [...new Set(lines.flatMap((line) => line.at.map((point) => point[0])))].sort((a, b) => a - b);
  let place = steps.length - 1;

  const nearest = (points, x) => points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));

  function show(at) {
    place = Math.max(0, Math.min(steps.length - 1, at));
    const x = steps[place];
    const pixel = left + ((x - low) / (high - low)) * (right - left);
    guide.setAttribute("x1", pixel);
    guide.setAttribute("x2", pixel);
    guide.setAttribute("visibility", "visible");
    const values = lines.map((line) => [line.name, nearest(line.at, x)])
      .map(([name, [, value, from, to]]) => `${name} ${spell(value)}${from < to ? ` (${spell(from)} to ${spell(to)})` : ""}`);
    reading.textContent = `${chart.dataset.x} ${figure.format(x)}: ${values.join(" · ")}`;
  }

  function hide() {
    guide.setAttribute("visibility", "hidden");
    reading.textContent = "";
  }

  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const pixel = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
    const x = low + ((pixel - left) / (right - left)) * (high - low);
    show(steps.reduce((best, step, at) => (Math.abs(step - x) < Math.abs(steps[best] - x) ? at : best), 0));
  });
  chart.addEventListener("pointerleave", hide);
  chart.addEventListener("blur", hide);
  chart.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move) return;
    event.preventDefault();
    show(place + move);
  });
}

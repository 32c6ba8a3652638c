"use strict";
// Everything can be read without this: it sorts the table by a column, and marks a bubble's row while it is pointed at.
document.querySelectorAll("table.candidates").forEach((table) => {
  const body = table.tBodies[1];
  table.querySelectorAll("th[data-sort]").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(table, body, head, column));
  });
});

function sort(table, body, head, column) {
  const up = head.getAttribute("aria-sort") !== "ascending";
  table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const rows = [...body.rows].map((row) => [row.cells[column].dataset.value, row]);
  rows.sort(([a], [b]) => {
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
    const order = Number.isNaN(+a) || Number.isNaN(+b) ? a.localeCompare(b) : a - b;
    return up ? order : -order;
  });
  rows.forEach(([, row]) => body.append(row));
}

document.querySelectorAll("[data-rank]").forEach((place) => {
  const same = () => document.querySelectorAll(`[data-rank="${place.dataset.rank}"]`);
  place.addEventListener("pointerenter", () => same().forEach((each) => each.classList.add("pointed")));
  place.addEventListener("pointerleave", () => same().forEach((each) => each.classList.remove("pointed")));
});

window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => (each.open = true)));

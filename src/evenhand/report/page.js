"use strict";
// Draws each figure from the JSON beside it when it comes into view, in the page's own colours, and again when light
// turns to dark; makes tables sortable; opens everything for printing.
(function () {
  function colours() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    return {
      "font.color": read("--ink"),
      "hoverlabel.bgcolor": read("--panel"),
      "hoverlabel.bordercolor": read("--line"),
      "hoverlabel.font.color": read("--ink"),
    };
  }

  // ---- figures
  const drawn = new Set();
  function draw(plot) {
    if (drawn.has(plot)) return;
    drawn.add(plot);
    const figure = JSON.parse(document.getElementById(plot.id + "-data").textContent);
    for (const [path, colour] of Object.entries(colours())) {
      const parts = path.split(".");
      const last = parts.pop();
      let place = figure.layout;
      for (const part of parts) place = place[part] ??= {};
      place[last] = colour;
    }
    Plotly.newPlot(plot, figure.data, figure.layout, { displayModeBar: false, responsive: true });
  }
  const plots = Array.from(document.querySelectorAll(".plot"));
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) {
          seen.unobserve(entry.target);
          draw(entry.target);
        }
      }
    },
    { rootMargin: "300px" },
  );
  for (const plot of plots) seen.observe(plot);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const plot of drawn) Plotly.relayout(plot, colours());
  });

  // ---- printing: what is folded away is shown, what hasn't been seen is drawn
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = Array.from(document.querySelectorAll("details:not([open])"));
    for (const part of opened) part.open = true;
    plots.forEach(draw);
  });
  window.addEventListener("afterprint", () => {
    for (const part of opened) part.open = false;
  });

  // ---- sorting: the rows of one <tbody>, or where there are several, those as they are
  const missing = /^[\s–]*$/;
  function key(unit, column) {
    const row = unit.rows ? unit.rows[0] : unit;
    const cell = row.cells[column];
    if (!cell || (cell.colSpan > 1 && column > 0)) return null;
    const text = cell.dataset.sort ?? cell.textContent.trim();
    if (missing.test(text)) return null;
    const number = parseFloat(text.replace(/^[<≤]\s*/, "").replace("−", "-").replace(/,(?=\d{3})/g, ""));
    return /^[<≤]?\s*[+\-−]?\d/.test(text) && !Number.isNaN(number) ? number : text;
  }
  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  }
  function sort(table, column, down) {
    const several = table.tBodies.length > 1;
    const parent = several ? table : table.tBodies[0];
    const units = Array.from(several ? table.tBodies : parent.rows).map((unit) => [key(unit, column), unit]);
    units.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last
      return down ? compare(b, a) : compare(a, b);
    });
    for (const [, unit] of units) parent.append(unit);
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.className = "sort";
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        // numbers begin with the highest, names with the first
        const before = head.getAttribute("aria-sort");
        const down = before === null ? head.classList.contains("number") : before === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(table, column, down);
      });
    });
  }
})();

"use strict";
// Draws each figure from the JSON beside it, in the page's own colours, and again when light turns to dark.
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
  const plots = Array.from(document.querySelectorAll(".plot"));
  for (const plot of plots) {
    const figure = JSON.parse(document.getElementById(plot.id + "-data").textContent);
    Plotly.newPlot(plot, figure.data, figure.layout, { displayModeBar: false, responsive: true }).then(() =>
      Plotly.relayout(plot, colours()),
    );
  }
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const plot of plots) Plotly.relayout(plot, colours());
  });
})();

// Light, dark or as the system. Runs before the first paint, so that no page flashes in the other colours.
"use strict";
(() => {
  const order = ["system", "light", "dark"];
  const read = () => {
    try { return localStorage.getItem("mainstay-theme") || "system"; } catch { return "system"; }
  };
  const apply = (name) => {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    for (const word of document.querySelectorAll("[data-theme-name]")) {
      word.textContent = name[0].toUpperCase() + name.slice(1) + " theme";
    }
  };
  apply(read());
  addEventListener("DOMContentLoaded", () => {
    apply(read());
    for (const button of document.querySelectorAll("[data-theme-switch]")) {
      button.hidden = false;
      button.addEventListener("click", () => {
        const next = order[(order.indexOf(read()) + 1) % order.length];
        try { localStorage.setItem("mainstay-theme", next); } catch { /* storage is off: this page only */ }
        apply(next);
      });
    }
  });
})();

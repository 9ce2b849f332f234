// Cells that change while a page is open: the server sends {key: {cell: HTML}} for those that did.
const holder = document.querySelector("[data-live]");
let source = null;

function show(event) {
  for (const [key, cells] of Object.entries(JSON.parse(event.data))) {
    for (const cell of holder.querySelectorAll(`[data-now="${CSS.escape(key)}"]`)) {
      const fresh = cells[cell.dataset.cell];
      if (fresh !== undefined && cell.innerHTML !== fresh) cell.innerHTML = fresh;
    }
  }
}

if (holder) {
  source = new EventSource(holder.dataset.live);
  source.addEventListener("targets", show);
  addEventListener("pagehide", () => source.close());
}

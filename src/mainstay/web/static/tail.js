// The live tail of the trace list: new rows appear on top as they are recorded.
const ROWS_MAX = 200;
const button = document.querySelector("[data-tail]");
const body = document.getElementById("rows");
let source = null;

function add(event) {
  if (!body || body.querySelector(`[data-id="${CSS.escape(event.lastEventId)}"]`)) return;
  const holder = document.createElement("template");
  holder.innerHTML = event.data;
  const row = holder.content.querySelector("tr");
  row.classList.add("fresh");
  body.prepend(row);
  while (body.rows.length > ROWS_MAX) body.lastElementChild.remove();
  setTimeout(() => row.classList.remove("fresh"), 2500);
  document.querySelector("[data-tail-status]").textContent = "A new trace arrived.";
}

function start() {
  const newest = body?.querySelector("[data-id]")?.dataset.id || "";
  source = new EventSource(`${button.dataset.tail}&after=${encodeURIComponent(newest)}`);
  source.addEventListener("row", body ? add : () => location.reload());
  button.setAttribute("aria-pressed", "true");
}

function stop() {
  source?.close();
  source = null;
  button.setAttribute("aria-pressed", "false");
}

if (button) {
  button.hidden = false;
  button.addEventListener("click", () => (source ? stop() : start()));
  addEventListener("pagehide", stop);
  start();
}

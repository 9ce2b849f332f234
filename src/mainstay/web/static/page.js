// What every page gets with script on: keys, copying, parts swapped in place, the list of shortcuts.

const typing = (target) => target.closest("input, textarea, select, [contenteditable]") !== null;
let going = false;

function move(step) {
  const links = [...document.querySelectorAll("[data-row]")].map((row) => (row.matches("a") ? row : row.querySelector("a.row-link")));
  if (links.length === 0) return;
  const at = links.indexOf(document.activeElement);
  const next = at < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + step, 0), links.length - 1);
  links[next].focus();
  links[next].scrollIntoView({ block: "nearest" });
}

function go(key) {
  const place = document.querySelector(`.side [data-key="${CSS.escape(key)}"]`);
  if (place) location.assign(place.href);
}

async function showShortcuts() {
  let dialog = document.querySelector("dialog[data-shortcuts]");
  if (!dialog) {
    const page = new DOMParser().parseFromString(await (await fetch("/help")).text(), "text/html");
    const list = page.querySelector("#shortcuts");
    if (!list) return;
    dialog = document.createElement("dialog");
    dialog.dataset.shortcuts = "";
    dialog.setAttribute("aria-label", "Keyboard shortcuts");
    dialog.append(document.adoptNode(list));
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    document.body.append(dialog);
  }
  dialog.showModal();
}

function close() {
  const open = document.querySelector("details.same[open], details.act[open], .bar details[open]");
  if (open) {
    open.open = false;
    open.querySelector("summary").focus();
    return;
  }
  document.querySelector("[data-close]")?.click();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") return typing(event.target) ? event.target.blur() : close();
  if (typing(event.target)) return;
  if (going) {
    going = false;
    return go(event.key);
  }
  const act = {
    "/": () => document.querySelector("[data-filter]")?.focus(),
    j: () => move(1),
    k: () => move(-1),
    g: () => { going = true; setTimeout(() => { going = false; }, 1500); },
    "?": showShortcuts,
  }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

// A link with data-swap="#part" replaces that part of the page from the linked page; the address follows.
async function swap(href, selector, push) {
  const answer = await fetch(href, { headers: { accept: "text/html" } });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelector(selector);
  const old = document.querySelector(selector);
  if (!answer.ok || !fresh || !old) return location.assign(href);
  const focused = document.activeElement?.getAttribute("href");
  const across = old.querySelector(".waterfall")?.scrollLeft ?? 0;
  old.replaceWith(document.adoptNode(fresh));
  if (push) history.pushState({ swap: selector }, "", href);
  const waterfall = document.querySelector(selector + " .waterfall");
  if (waterfall) waterfall.scrollLeft = across;
  const again = focused && document.querySelector(`${selector} a[href="${CSS.escape(focused)}"]`);
  (again || document.querySelector(selector + " [aria-current]"))?.focus({ preventScroll: true });
  reveal();
}

function onClick(event) {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
  const copy = event.target.closest("[data-copy]");
  if (copy) return copyText(copy);
  if (event.target.closest("[data-help]")) {
    event.preventDefault();
    return showShortcuts();
  }
  const link = event.target.closest("a[data-swap]");
  if (link) {
    event.preventDefault();
    return swap(link.href, link.dataset.swap, true);
  }
  for (const open of document.querySelectorAll("details.same[open], details.act[open], .bar details[open]")) {
    if (!open.contains(event.target)) open.open = false;
  }
}

async function copyText(button) {
  const label = button.innerHTML;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => { button.innerHTML = label; }, 1600);
}

function reveal() {
  for (const button of document.querySelectorAll("[data-copy][hidden]")) button.hidden = false;
}

addEventListener("keydown", onKey);
addEventListener("click", onClick);
addEventListener("popstate", (event) => {
  const part = event.state?.swap || document.querySelector("[data-swap]")?.dataset.swap;
  if (part && document.querySelector(part)) swap(location.href, part, false);
});
reveal();
if (!location.hash) document.getElementById("cited")?.scrollIntoView({ block: "center" });

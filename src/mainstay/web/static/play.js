// The playground's answers, streamed: the form's own post stays the way without script.
const form = document.querySelector("[data-play]");
const answers = document.querySelector("[data-answers]");
const csrf = document.querySelector('meta[name="csrf"]')?.content;
let running = null;

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n");
      const name = lines.find((line) => line.startsWith("event: "))?.slice(7);
      if (name) yield { name, data: lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n") };
    }
  }
}

function card(model) {
  const made = document.createElement("article");
  made.className = "panel answer-card busy";
  made.innerHTML = '<header><h2></h2></header><div><div class="turn assistant"><p class="who">Writing…</p><div class="say answer"></div></div></div>';
  made.querySelector("h2").textContent = model;
  answers.append(made);
  return made;
}

function fail(made, text) {
  const body = made.lastElementChild;
  body.innerHTML = '<div class="turn"><div class="notice bad" role="alert"><p></p></div></div>';
  body.querySelector("p").textContent = text;
}

async function ask(model, question, signal) {
  const made = card(model);
  const say = made.querySelector(".say");
  try {
    const answer = await fetch("/playground/stream", {
      method: "POST",
      body: new URLSearchParams({ model, question }),
      headers: { "x-csrf-token": csrf },
      signal,
    });
    if (!answer.headers.get("content-type")?.startsWith("text/event-stream")) {
      return fail(made, answer.redirected ? "You were signed out. Reload the page." : `The server answered ${answer.status}. Reload the page and try again.`);
    }
    let ended = false;
    for await (const { name, data } of events(answer.body)) {
      if (name === "text") say.textContent += JSON.parse(data);
      if (name === "final" || name === "error") {
        made.lastElementChild.innerHTML = data;
        ended = true;
      }
    }
    if (!ended) fail(made, "The answer ended before it was whole.");
  } catch (error) {
    if (error.name === "AbortError") made.querySelector(".who").textContent = "Stopped";
    else fail(made, "The connection to the server was lost.");
  } finally {
    made.classList.remove("busy");
  }
}

async function submit(event) {
  event.preventDefault();
  if (running) return;
  const { model, other, question } = Object.fromEntries(new FormData(form));
  running = new AbortController();
  answers.replaceChildren();
  form.querySelector("[data-send]").disabled = true;
  form.querySelector("[data-stop]").hidden = false;
  const address = new URL(location.href);
  for (const [name, value] of Object.entries({ model, other, question })) {
    if (value) address.searchParams.set(name, value);
    else address.searchParams.delete(name);
  }
  history.replaceState(null, "", address);
  await Promise.all([model, other].filter(Boolean).map((name) => ask(name, question, running.signal)));
  running = null;
  form.querySelector("[data-send]").disabled = false;
  form.querySelector("[data-stop]").hidden = true;
}

if (form) {
  form.addEventListener("submit", submit);
  form.querySelector("[data-stop]").addEventListener("click", () => running?.abort());
  form.querySelector("textarea").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) form.requestSubmit();
  });
}

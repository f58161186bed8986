// Keeps the page fresh, and lets people act. The page reads well without it.
"use strict";

const main = document.querySelector("main");
const live = document.getElementById("live");
const dialog = document.getElementById("ask");
const api = "/api/v1";
const json = { "content-type": "application/json" };
// Between two refreshes: a burst of changes makes one.
const PAUSE_MS = 500;
const RETRY_MS = 5000;

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// ---- Fresh ----

// Waits until something has changed, or some time has passed so that ages move on; then shows the page as it is now.
async function follow() {
  for (;;) {
    try {
      const after = main.dataset.revision;
      const changed = await fetch(`${api}/changes?newest=true&wait=20s&after=${after}`);
      if (!changed.ok) throw new Error(`the server answers ${changed.status}`);
      await changed.text();
      await refresh();
      tell("live", "good");
      await sleep(PAUSE_MS);
    } catch (problem) {
      tell(`not live: ${problem.message}; trying again`, "warn");
      await sleep(RETRY_MS);
    }
  }
}

function tell(text, kind) {
  if (live.textContent !== text) live.textContent = text;
  live.className = kind;
}

async function refresh() {
  const answer = await fetch(location.href);
  if (!answer.ok && answer.status !== 404) throw new Error(`the server answers ${answer.status}`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelector("main");
  if (!fresh) return;
  const open = new Set([...main.querySelectorAll("details[open]")].map((one) => one.dataset.lock));
  const shown = new Map([...main.querySelectorAll("details[open] pre")].map((pre) => [pre.parentElement.dataset.lock, pre.textContent]));
  const search = document.getElementById("search");
  const typed = search && { value: search.value, focused: document.activeElement === search };
  const focus = document.activeElement?.dataset?.action;
  main.replaceChildren(...fresh.childNodes);
  main.dataset.revision = fresh.dataset.revision;
  for (const one of main.querySelectorAll("details")) {
    if (open.has(one.dataset.lock)) {
      one.open = true;
      one.querySelector("pre").textContent = shown.get(one.dataset.lock) ?? "";
    }
  }
  const input = document.getElementById("search");
  if (typed && input) {
    input.value = typed.value;
    if (typed.focused) input.focus();
  }
  if (focus) [...main.querySelectorAll("[data-action]")].find((one) => one.dataset.action === focus)?.focus();
  arrange();
}

// ---- Search and sort ----

let order = null;

function arrange() {
  const table = main.querySelector("table.sortable");
  if (!table) return;
  const text = (document.getElementById("search")?.value ?? "").toLowerCase();
  const rows = [...table.tBodies[0].rows];
  for (const row of rows) row.hidden = !row.dataset.name.toLowerCase().includes(text);
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    if (!cell.querySelector("button")) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = cell.textContent;
      button.addEventListener("click", () => {
        order = { column, down: order?.column === column ? !order.down : column > 0 };
        arrange();
      });
      cell.replaceChildren(button);
    }
    cell.ariaSort = order?.column === column ? (order.down ? "descending" : "ascending") : null;
  });
  if (!order) return;
  const key = (row) => row.cells[order.column].dataset.value ?? "";
  const compare = (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
  rows.sort((a, b) => (order.down ? compare(b, a) : compare(a, b)));
  table.tBodies[0].append(...rows);
}

main.addEventListener("input", (event) => {
  if (event.target.id === "search") arrange();
});

// ---- Metadata, only when somebody asks for it ----

main.addEventListener("toggle", async (event) => {
  const details = event.target;
  if (!details.open || details.querySelector("pre").textContent) return;
  const pre = details.querySelector("pre");
  pre.textContent = "…";
  try {
    const lock = await (await fetch(api + details.dataset.lock)).json();
    pre.textContent = lock.metadata ?? lock.metadata_base64 ?? lock.error ?? "";
    if (!pre.textContent) pre.textContent = "(empty)";
  } catch (problem) {
    pre.textContent = problem.message;
  }
}, true);

// ---- Acting ----

function field(name, label, value, needed) {
  const box = document.createElement("label");
  box.textContent = label;
  const input = document.createElement("input");
  Object.assign(input, { name, value, required: needed, maxLength: 256, autocomplete: "off" });
  box.append(input);
  return box;
}

let asked = null;

main.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  if (!button) return;
  asked = JSON.parse(button.dataset.action);
  const fields = [];
  if (asked.path.includes("{name}")) fields.push(field("name", "Name of the lock", "", true));
  fields.push(field("person", "Your name", localStorage.getItem("person") ?? "", true));
  if (asked.by === "owner") fields.push(field("ttl", "For how long, such as 30m or 2h", "1h", true));
  fields.push(field("reason", "Why", "", true));
  document.getElementById("ask-title").textContent = button.textContent;
  document.getElementById("ask-text").textContent = asked.text;
  document.getElementById("ask-fields").replaceChildren(...fields);
  document.getElementById("ask-error").textContent = "";
  document.getElementById("ask-do").textContent = button.textContent;
  dialog.showModal();
  fields.map((box) => box.querySelector("input")).find((input) => !input.value)?.focus();
});

document.getElementById("ask-cancel").addEventListener("click", () => dialog.close());

dialog.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = Object.fromEntries(new FormData(event.target));
  localStorage.setItem("person", said.person);
  const button = document.getElementById("ask-do");
  button.disabled = true;
  document.getElementById("ask-error").textContent = "";
  try {
    const answer = await act(asked, said);
    if (answer.ok) {
      dialog.close();
      await refresh();
    } else {
      const why = await answer.json().catch(() => ({}));
      document.getElementById("ask-error").textContent = why.error ?? `the server answers ${answer.status}`;
    }
  } catch (problem) {
    document.getElementById("ask-error").textContent = `${problem.message}: look whether it was done, and try again`;
  } finally {
    button.disabled = false;
  }
});

function act(action, said) {
  const owner = { person: said.person };
  const body = { ...action.body };
  let path = action.path.replace("{name}", encodeURIComponent(said.name ?? ""));
  if (action.by === "body") body.by = { owner, reason: said.reason };
  if (action.by === "owner") {
    path = path.replace("{new}", crypto.getRandomValues(new Uint32Array(4)).join("-"));
    Object.assign(body, { owner, reason: said.reason, ttl: said.ttl, queue: false });
  }
  if (action.by === "query") {
    const query = new URLSearchParams({ by: said.person, reason: said.reason });
    path += (path.includes("?") ? "&" : "?") + query;
    return fetch(api + path, { method: action.method, headers: json });
  }
  return fetch(api + path, { method: action.method, headers: json, body: JSON.stringify(body) });
}

arrange();
tell("live", "good");
follow();

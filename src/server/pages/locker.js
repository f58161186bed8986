// Keeps the page fresh, and lets people act. The page reads well without it.
"use strict";

const main = document.querySelector("main");
const live = document.getElementById("live");
const dialog = document.getElementById("ask");
const api = "/api/v1";
// The page token says that a call comes from a page of this session.
const token = { "x-locker-page": document.querySelector("meta[name=page-token]")?.content ?? "" };
const json = { ...token, "content-type": "application/json" };
// Between two refreshes: a burst of changes makes one.
const PAUSE_MS = 700;
const RETRY_MS = 5000;
// Events that do not come through within this time, perhaps because of a proxy, are not waited for.
const SILENCE_MS = 25000;

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// ---- Fresh ----

let stale = false;
let wake = () => {};

// The page as it is now does not show everything.
function changed() {
  stale = true;
  wake();
}

// Shows the page as it is now, whenever something has changed.
async function keepFresh() {
  for (;;) {
    if (!stale) await new Promise((done) => { wake = done; });
    stale = false;
    try {
      await refresh();
      tell("live", "good");
      await sleep(PAUSE_MS);
    } catch (problem) {
      tell(`not live: ${problem.message}; trying again`, "warn");
      stale = true;
      await sleep(RETRY_MS);
    }
  }
}

// Follows the events of the server. If they do not come through, asks for changes again and again.
async function follow() {
  for (;;) {
    const worked = await followEvents();
    if (!worked) await poll();
    await sleep(RETRY_MS);
  }
}

// Ends when the events end. Says whether there were any.
function followEvents() {
  const query = new URLSearchParams({ entries: "false", since: main.dataset.revision });
  if (main.dataset.pool) query.set("pool", main.dataset.pool);
  const events = new EventSource(`${api}/events?${query}`);
  return new Promise((ended) => {
    let worked = false;
    let timer = 0;
    const expect = () => {
      clearTimeout(timer);
      timer = setTimeout(end, SILENCE_MS);
    };
    function end() {
      clearTimeout(timer);
      events.close();
      ended(worked);
    }
    expect();
    events.addEventListener("now", ({ data }) => {
      // The first one says where the page begins. Later ones come when something is new, and now and then, for the ages.
      if (worked || String(JSON.parse(data).revision) !== main.dataset.revision) changed();
      worked = true;
      expect();
    });
    events.onerror = () => {
      // A browser asks again by itself, unless the server has refused.
      if (events.readyState === EventSource.CLOSED) end();
      else changed();
    };
  });
}

// Waits until something has changed, or some time has passed so that ages move on. Ends at the first failure.
async function poll() {
  try {
    for (;;) {
      const query = `newest=true&wait=20s&after=${main.dataset.revision}`;
      const answer = await fetch(`${api}/changes?${query}`, { headers: token });
      if (!answer.ok) return changed();
      await answer.text();
      changed();
      await sleep(PAUSE_MS);
    }
  } catch {
    changed();
  }
}

function tell(text, kind) {
  if (live.textContent !== text) live.textContent = text;
  live.className = kind;
}

// After an action the page must be the present one, and not one that was made for another reader a moment before.
async function refresh(acted = false) {
  const answer = await fetch(location.href, { headers: { ...token, accept: "text/html" }, cache: acted ? "reload" : "default" });
  if (answer.redirected) return location.reload();
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelector("main");
  if (!answer.ok && answer.status !== 404) throw new Error(fresh?.dataset.problem ?? `the server answers ${answer.status}`);
  if (!fresh) return;
  keepOpen(fresh);
  const search = document.getElementById("search");
  const typed = search && { value: search.value, focused: document.activeElement === search };
  const focus = document.activeElement?.dataset?.action;
  main.replaceChildren(...fresh.childNodes);
  main.dataset.revision = fresh.dataset.revision;
  const input = document.getElementById("search");
  if (typed && input) {
    input.value = typed.value;
    if (typed.focused) input.focus();
  }
  if (focus) [...main.querySelectorAll("[data-action]")].find((one) => one.dataset.action === focus)?.focus();
  arrange();
  showNext();
}

// What a reader has opened stays open, with what it shows.
function keepOpen(fresh) {
  const key = (one) => one.dataset.lock ?? one.id;
  const open = new Map([...main.querySelectorAll("details[open]")].map((one) => [key(one), one]));
  for (const one of fresh.querySelectorAll("details")) {
    const old = open.get(key(one));
    if (!old) continue;
    one.open = true;
    const shown = old.querySelector(".metadata");
    if (shown) one.querySelector(".metadata").replaceChildren(...shown.childNodes);
  }
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

// A line whose name says that its value is secret, and what looks like a secret by itself.
const SECRET_NAME = /^(\s*(?:- )?["']?[\w.-]*(?:passw|passphrase|secret|token|credential|private|api[_-]?key|access[_-]?key)[\w.-]*["']?\s*[:=]\s*)(\S.*)$/i;
const SECRET_VALUE = /([a-z][\w+.-]*:\/\/[^\s:@/]*:)([^\s@/]+)(?=@)|(\b)([A-Za-z0-9+/_-]{32,}={0,2})/;

function pre(text) {
  const block = document.createElement("pre");
  let inKey = false;
  for (const line of text.split("\n")) {
    const begins = /-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(line);
    const found = SECRET_NAME.exec(line) ?? SECRET_VALUE.exec(line);
    if (begins || inKey) block.append(hidden(line));
    else if (found) {
      const secret = found[2] ?? found[4];
      const at = line.indexOf(secret, found.index + (found[1] ?? "").length);
      block.append(line.slice(0, at), hidden(secret), line.slice(at + secret.length));
    } else block.append(line);
    block.append("\n");
    inKey = (begins || inKey) && !/-----END /.test(line);
  }
  return block;
}

// Something secret, which a click shows.
function hidden(text) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "secret";
  button.textContent = "hidden: show";
  button.addEventListener("click", () => button.replaceWith(text));
  return button;
}

main.addEventListener("toggle", async (event) => {
  const details = event.target;
  const box = details.querySelector(".metadata");
  if (!box || !details.open || box.childNodes.length) return;
  box.textContent = "…";
  try {
    const lock = await (await fetch(api + details.dataset.lock, { headers: token })).json();
    const text = lock.metadata ?? lock.metadata_base64 ?? lock.error ?? "";
    box.replaceChildren(pre(text || "(empty)"));
  } catch (problem) {
    box.textContent = problem.message;
  }
}, true);

// ---- Acting ----

const random = () => [...crypto.getRandomValues(new Uint32Array(4))].join("-");

function input(field) {
  if (field.kind === "lines") return document.createElement("textarea");
  if (field.kind === "choice") {
    const select = document.createElement("select");
    for (const choice of ["", ...field.choices]) select.append(new Option(choice || "(default)", choice));
    return select;
  }
  const box = document.createElement("input");
  box.type = { check: "checkbox", number: "number" }[field.kind] ?? "text";
  return box;
}

function labelled(field) {
  const label = document.createElement("label");
  const box = input(field);
  box.name = field.name;
  box.required = field.required;
  box.autocomplete = "off";
  if (field.kind === "check") {
    box.checked = field.value === "true";
    label.className = "check";
    label.append(box, ` ${field.label}`);
  } else {
    box.value = field.value;
    label.append(field.label, box);
  }
  return label;
}

let asked = null;

main.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  if (!button) return;
  asked = { by: "body", body: {}, fields: [], ...JSON.parse(button.dataset.action), op: random() };
  const person = { name: "person", label: "Your name", kind: "text", value: localStorage.getItem("person") ?? "", required: true };
  const reason = { name: "reason", label: "Why", kind: "text", value: "", required: true };
  const fields = [...asked.fields, person, reason].map(labelled);
  document.getElementById("ask-title").textContent = button.textContent;
  document.getElementById("ask-text").textContent = asked.text;
  document.getElementById("ask-fields").replaceChildren(...fields);
  document.getElementById("ask-error").textContent = "";
  document.getElementById("ask-do").textContent = button.textContent;
  dialog.showModal();
  fields.map((box) => box.querySelector("[required]")).find((box) => box && !box.value)?.focus();
});

document.getElementById("ask-cancel").addEventListener("click", () => dialog.close());

dialog.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = Object.fromEntries(new FormData(event.target));
  localStorage.setItem("person", said.person);
  const button = document.getElementById("ask-do");
  const error = document.getElementById("ask-error");
  button.disabled = true;
  error.textContent = "";
  try {
    const answer = await act(asked, said);
    if (answer.ok) {
      dialog.close();
      refresh(true).catch(changed);
    } else {
      const why = await answer.json().catch(() => ({}));
      error.textContent = why.error ?? `the server answers ${answer.status}`;
    }
  } catch (problem) {
    error.textContent = `${problem.message}: look whether it was done, and try again`;
  } finally {
    button.disabled = false;
  }
});

// Puts what was entered where it belongs: into the path, or into the body.
function filled(action, said) {
  const body = structuredClone(action.body);
  let path = action.path.replace("{new}", action.op);
  for (const { name, kind } of action.fields) {
    const value = said[name] ?? "";
    if (name.startsWith("{")) path = path.replace(name, encodeURIComponent(value));
    else if (value !== "") {
      const parts = name.split(".");
      const last = parts.pop();
      parts.reduce((at, part) => (at[part] ??= {}), body)[last] = typed(kind, value);
    }
  }
  return { path, body };
}

function typed(kind, value) {
  if (kind === "check") return true;
  if (kind === "number") return Number(value);
  if (kind !== "labels") return value;
  const pairs = value.split(",").map((pair) => pair.trim()).filter(Boolean);
  return Object.fromEntries(pairs.map((pair) => pair.split("=", 2).map((part) => part.trim())).map(([name, is]) => [name, is ?? ""]));
}

function send(method, path, body) {
  return fetch(api + path, { method, headers: json, body: body && JSON.stringify(body) });
}

async function act(action, said) {
  const owner = { person: said.person };
  const { path, body } = filled(action, said);
  if (action.by === "query") {
    const query = new URLSearchParams({ by: said.person, reason: said.reason });
    return send(action.method, path + (path.includes("?") ? "&" : "?") + query);
  }
  if (action.by === "body") return send(action.method, path, { ...body, by: { op: action.op, owner, reason: said.reason } });
  const claim = { ...body, owner, reason: said.reason };
  if (action.by === "owner") return send(action.method, path, { ...claim, queue: false });
  const answer = await send(action.method, path, claim);
  if (answer.status !== 423) return answer;
  const first = { to: "first", by: { op: action.op, owner, reason: said.reason } };
  const moved = await send("POST", `${path}/move`, first);
  if (moved.ok) takeNext({ path, claim });
  return moved;
}

// ---- Mine next: asks until it is served, also after the page was loaded again ----

let next = null;

async function takeNext(wanted) {
  next = wanted;
  sessionStorage.setItem("next", JSON.stringify(wanted));
  while (next === wanted) {
    showNext();
    try {
      const answer = await send("PUT", wanted.path, { ...wanted.claim, wait: "25s" });
      if (answer.status !== 423 && answer.status < 500) break;
    } catch {
      await sleep(RETRY_MS);
    }
  }
  if (next === wanted) {
    next = null;
    sessionStorage.removeItem("next");
    changed();
  }
}

function showNext() {
  const note = document.getElementById("next");
  if (!note) return;
  const here = next?.claim.pool === main.dataset.pool;
  note.hidden = !here;
  note.textContent = here ? "You are next: keep this page open until you have the lock." : "";
}

// ---- Signing out ----

document.getElementById("sign-out")?.addEventListener("click", async () => {
  await send("DELETE", "/session").catch(() => {});
  location.assign("/login");
});

arrange();
if (main.dataset.live === "true") {
  tell("live", "good");
  keepFresh();
  follow();
}
const waiting = sessionStorage.getItem("next");
if (waiting) takeNext(JSON.parse(waiting));

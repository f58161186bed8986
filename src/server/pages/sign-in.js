// Exchanges a password for the cookie of a session. The password goes into a header, never into a URL.
"use strict";

const form = document.getElementById("sign-in");
const problem = document.getElementById("problem");
const session = "/api/v1/session";

// Where the reader wanted to go, if that is a page of this server. Whole, since a path such as //host would lead elsewhere.
function goal() {
  const wanted = new URLSearchParams(location.search).get("next") ?? "/";
  const url = URL.canParse(wanted, location.origin) ? new URL(wanted, location.origin) : null;
  return url?.origin === location.origin ? url.href : "/";
}

function basic(username, password) {
  const bytes = new TextEncoder().encode(`${username}:${password}`);
  return `Basic ${btoa(String.fromCharCode(...bytes))}`;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  const said = new FormData(form);
  button.disabled = true;
  problem.textContent = "";
  try {
    const headers = { authorization: basic(said.get("username"), said.get("password")), "content-type": "application/json" };
    const answer = await fetch(session, { method: "POST", headers });
    if (answer.ok) return location.replace(goal());
    const why = await answer.json().catch(() => ({}));
    problem.textContent = why.error ?? `The server answers ${answer.status}.`;
  } catch (failure) {
    problem.textContent = `The server cannot be reached: ${failure.message}.`;
  }
  form.elements.password.value = "";
  button.disabled = false;
});

// A browser does not send the cookie when it follows a link from another site. Here it does.
fetch(session).then((answer) => answer.json()).then((answer) => {
  if (answer.identity) location.replace(goal());
}).catch(() => {});

// One request and what its answer means.
//
// An answer with a `code` of the server is final. After a network error, 408, 429, 5xx or an answer of something else (a
// proxy whose server is away), the outcome is unknown and the caller asks again. Redirects are never followed, so
// credentials go to the named servers only.

import fs from "node:fs";
import http from "node:http";
import https from "node:https";

import { Hopeless, LockerError, NoAnswer } from "./errors.js";
import { refused } from "./refused.js";

/** How long one request may take, in addition to the wait that it asks the server for, in seconds. */
export const PATIENCE = 15;
/** How long connecting may take, in seconds. */
const CONNECT = 5;
/** The longest answer that is read, in bytes. */
const BODY_BYTES = 32 * 1024 * 1024;
/** Statuses below 500 that something between client and server answers while the server is away. */
const PASSING = [404, 408, 410, 425, 429];
/** Codes of TLS errors that say that a certificate is not trusted. */
const UNTRUSTED = /^(?!ERR_SSL_).*(CERT|SIGNATURE)/;

/** An answer that does not come from a locker server. */
class Foreign extends NoAnswer {
  constructor(status) {
    const said = status >= 300 && status < 400 ? "a redirect" : "an answer";
    super(`${said} (status ${status}) that does not come from a locker server`);
    this.lasts = (status < 500 && !PASSING.includes(status)) || status === 501;
  }
}

/** A server, without its credentials in any text. */
function server(text) {
  let url;
  try {
    url = new URL(text.trim());
  } catch {
    throw new LockerError("the server's address is not a URL such as http://HOST:8910");
  }
  if (!["http:", "https:"].includes(url.protocol) || url.search || url.hash) {
    throw new LockerError("the server's address must be http:// or https://, a host and perhaps a port and a path");
  }
  const tls = url.protocol === "https:";
  const path = url.pathname.replace(/\/+$/, "");
  const port = Number(url.port || (tls ? 443 : 80));
  const own = url.username ? `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}` : null;
  const name = `${url.protocol}//${url.hostname}:${port}${path}`;
  return { tls, host: url.hostname.replace(/^\[|\]$/g, ""), port, path, name, own, hopeless: false };
}

/** Requests to the servers of one store. */
export class Transport {
  #servers;
  #headers;
  #tls;
  #current = 0;
  #met = false;

  constructor(urls, { username, password, token, caFile, certFile, keyFile } = {}) {
    this.#servers = urls.map(server);
    if (this.#servers.length === 0) throw new LockerError("no server is named");
    this.#headers = headers(this.#servers, username, password, token);
    for (const one of this.#servers) delete one.own;
    this.#tls = {
      ...(caFile && { ca: fs.readFileSync(caFile) }),
      ...(certFile && { cert: fs.readFileSync(certFile), key: fs.readFileSync(keyFile ?? certFile) }),
    };
  }

  /** A `GET`. Members without a value are left out. */
  get(path, query = {}) {
    const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
    const text = given.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
    return this.send("GET", text ? `${path}?${text}` : path);
  }

  /**
   * Sends one request. Resolves to `{status, body}` for any 2xx, and for a 423 that says who waits for what; rejects in
   * all other cases. A server that cannot be connected to has not seen the request, so the next one is asked at once.
   */
  async send(method, path, body, { patience = PATIENCE, signal } = {}) {
    for (let left = this.#servers.length - 1; ; left--) {
      const index = this.#current;
      const one = this.#servers[index];
      const seen = { connected: false };
      try {
        return this.#judge(await this.#exchange(index, method, path, body, { patience, signal, seen }));
      } catch (error) {
        if (signal?.aborted) throw signal.reason;
        if (error instanceof LockerError && !(error instanceof NoAnswer)) throw error;
        one.hopeless = !this.#met && lasts(error);
        if (this.#current === index) this.#current = (index + 1) % this.#servers.length;
        if (left === 0 || (seen.connected && !one.hopeless)) throw this.#trouble(one, error);
      }
    }
  }

  #exchange(index, method, path, body, { patience, signal, seen }) {
    const one = this.#servers[index];
    const data = body === undefined ? undefined : JSON.stringify(body);
    const options = {
      method,
      host: one.host,
      port: one.port,
      path: one.path + path,
      headers: { "User-Agent": "locker-javascript", ...this.#headers[index] },
      agent: false,
      signal,
      ...(one.tls && this.#tls),
    };
    if (data !== undefined) {
      options.headers["Content-Type"] = "application/json";
      options.headers["Content-Length"] = Buffer.byteLength(data);
    }
    return new Promise((resolve, reject) => {
      const request = (one.tls ? https : http).request(options);
      const limit = (seconds, what) => setTimeout(() => request.destroy(new Error(what)), seconds * 1000);
      const timers = [limit(patience, "no answer in time"), limit(Math.min(CONNECT, patience), "cannot connect in time")];
      const end = (settle) => (value) => {
        timers.forEach(clearTimeout);
        settle(value);
      };
      request.on("socket", (socket) =>
        socket.once(one.tls ? "secureConnect" : "connect", () => {
          seen.connected = true;
          clearTimeout(timers[1]);
        }),
      );
      request.on("error", end(reject));
      request.on("response", (response) => collect(response, end(resolve), end(reject)));
      request.end(data);
    });
  }

  #judge({ status, text }) {
    let body;
    try {
      body = JSON.parse(text);
    } catch {
      body = null;
    }
    const isObject = body !== null && typeof body === "object" && !Array.isArray(body);
    if (!isObject || !(status < 300 || "code" in body)) throw new Foreign(status);
    this.#met = true;
    if (status < 300 || (status === 423 && "parked" in body)) return { status, body };
    if (status === 408 || status === 429 || status >= 500) throw new NoAnswer(`${body.error} (${body.code})`);
    throw refused(body, status);
  }

  #trouble(one, error) {
    const Kind = this.#servers.every((each) => each.hopeless) ? Hopeless : NoAnswer;
    return new Kind(`no answer from the locker server at ${one.name}: ${inWords(error)}`);
  }
}

/** Reads a whole answer. */
function collect(response, resolve, reject) {
  const parts = [];
  let size = 0;
  response.on("data", (part) => {
    parts.push(part);
    size += part.length;
    if (size > BODY_BYTES) response.destroy(new Error("its answer is too long"));
  });
  response.on("error", reject);
  response.on("end", () => resolve({ status: response.statusCode, text: Buffer.concat(parts).toString() }));
}

/** Whether asking again does not help: somebody has to change something first. */
function lasts(error) {
  if (error instanceof Foreign) return error.lasts;
  return UNTRUSTED.test(error.code ?? "") || String(error.code).startsWith("HPE_");
}

function inWords(error) {
  const code = error.code ?? "";
  if (UNTRUSTED.test(code)) return `its certificate is not trusted (${error.message}): give caFile`;
  if (code.startsWith("HPE_")) return "it does not answer in HTTP: does it expect https://?";
  if (error.message === "socket hang up") return "the connection was closed before the answer";
  return error.message || code;
}

function headers(servers, username, password, token) {
  if (token !== undefined) {
    if (username !== undefined || password !== undefined) {
      throw new LockerError("give either a token, or a user name and a password");
    }
    if (!/^[!-~]+$/.test(token)) {
      throw new LockerError("the token has characters that no token has: look for spaces and newlines around it");
    }
    return servers.map(() => ({ Authorization: `Bearer ${token}` }));
  }
  const basic = (pair) => ({ Authorization: `Basic ${Buffer.from(pair).toString("base64")}` });
  if (username !== undefined) return servers.map(() => basic(`${username}:${password ?? ""}`));
  const own = servers.filter((one) => one.own).length;
  if (own > 0 && own < servers.length) {
    throw new LockerError("only some of the servers have a user and password in their URL: write them into each");
  }
  return servers.map((one) => (one.own ? basic(one.own) : {}));
}

import os from "node:os";

import { Acquire } from "./acquire.js";
import { duration, isHeld } from "./hold.js";
import { insist } from "./retry.js";
import { PATIENCE, Transport } from "./transport.js";

/** The shortest ttl, in seconds. Below 15 s little time is left to stop. */
const SHORTEST_TTL = 3;
const WHICH = ["lock", "locks", "count", "labels", "key", "requestor", "priority", "reason"];
const LOCAL = ["also", "ttl", "onLost", "timeout", "onWait", "signal"];

/** A client of one store, which one or more servers serve. */
export class Locker {
  #transport;
  #owner;

  constructor(servers = "http://127.0.0.1:8910", { owner, ...access } = {}) {
    this.#transport = new Transport(typeof servers === "string" ? servers.split(",") : servers, access);
    this.#owner = owner ?? { person: person() };
  }

  static fromEnv(env = process.env) {
    const get = (name) => env[name] || undefined;
    return new Locker(get("LOCKER_URI") ?? "http://127.0.0.1:8910", {
      username: get("LOCKER_USERNAME"),
      password: get("LOCKER_PASSWORD"),
      token: get("LOCKER_TOKEN"),
      caFile: get("LOCKER_CA_CERT"),
      certFile: get("LOCKER_CLIENT_CERT"),
      keyFile: get("LOCKER_CLIENT_KEY"),
    });
  }

  lock(pool, options = {}) {
    return this.#acquire(pool, options, true);
  }

  tryLock(pool, options = {}) {
    return this.#acquire(pool, options, false);
  }

  async withLock(pool, options, work) {
    if (work === undefined) return this.withLock(pool, {}, options);
    const hold = await this.lock(pool, options);
    let result;
    try {
      result = await work(hold);
    } catch (error) {
      // What the work itself throws says more than a loss.
      await hold._giveBack().catch(() => {});
      throw error;
    }
    await hold._giveBack();
    return result;
  }

  verify(pool, lock, fence) {
    return isHeld(this.#transport, pool, lock, fence);
  }

  async history(pool, { limit = 100, ...filters } = {}) {
    const path = pool ? `/api/v1/pools/${encodeURIComponent(pool)}/changes` : "/api/v1/changes";
    return (await this.#get(path, { limit, order: "newest_first", ...filters })).items;
  }

  getLock(pool, lock) {
    return this.#get(`/api/v1/pools/${encodeURIComponent(pool)}/locks/${encodeURIComponent(lock)}`);
  }

  info() {
    return this.#get("/api/v1/info");
  }

  async #get(path, query) {
    return (await insist(PATIENCE, () => this.#transport.get(path, query))).body;
  }

  async #acquire(pool, options, queue) {
    const unknown = Object.keys(options).filter((name) => !WHICH.includes(name) && !LOCAL.includes(name));
    if (unknown.length > 0) throw new TypeError(`unknown options: ${unknown.join(", ")}`);
    const { ttl = 60, also = [] } = options;
    if (!(ttl >= SHORTEST_TTL)) {
      throw new RangeError(`a ttl of ${ttl} s leaves no time to stop: at least ${SHORTEST_TTL} s`);
    }
    const body = { pool, scope: "lease", ttl: duration(ttl), confirm: true, queue, owner: this.#owner };
    for (const name of WHICH) if (options[name] !== undefined) body[name] = options[name];
    if (also.length > 0) body.also = also;
    return new Acquire(this.#transport, body, { ...options, ttl }).run();
  }
}

function person() {
  let user = "somebody";
  try {
    user = os.userInfo().username;
  } catch {
    // A user without a name, as in some containers.
  }
  return `${user}@${os.hostname()}`;
}

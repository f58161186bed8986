// Held locks, and the renewal of their lease in the background.
//
//   0 ---------- ttl/3 ------------ 2/3 ttl ------------------- ttl
//                renew; again if    told that it is lost        the server may give the locks to others
//                that fails
//
// The server counts from when it receives a renewal, this side from before it was sent, so this side's lease always ends
// first.

import { Conflict, Lost, Refused } from "./errors.js";
import { Backoff, clock, insist } from "./retry.js";
import { PATIENCE } from "./transport.js";

/** How long giving the locks back may take without an answer, in seconds. After that the lease ends by itself. */
const GIVE_BACK = 10;
/** The longest sleep in one piece, in seconds: timers do not count the time that the machine is suspended. */
const SLICE = 0.5;
/** Refusals that say that the claim no longer holds its locks. Others, such as refused credentials, do not say so. */
const OVER = ["ended", "no_such_claim", "not_granted", "wrong_fence", "superseded_run"];
const UNITS = { ms: 0.001, s: 1, m: 60, h: 3600, day: 86400, d: 86400 };

/** A duration as the API reads it. */
export const duration = (seconds) => `${Math.round(seconds * 1000)}ms`;

/** A duration as the API writes it: 1m5s, 4s352ms. */
function seconds(text) {
  const found = [...text.matchAll(/(\d+)\s*(ms|s|m|h|day|d)/g)];
  return found.reduce((sum, [, number, unit]) => sum + Number(number) * UNITS[unit], 0);
}

/** Whether this fence belongs to a present holder of the lock. */
export async function isHeld(transport, pool, lock, fence) {
  try {
    await insist(PATIENCE, () => transport.get("/api/v1/verify", { pool, lock, fence }));
    return true;
  } catch (error) {
    if (error instanceof Conflict && error.code === "not_held") return false;
    throw error;
  }
}

const isOver = (error) => error instanceof Refused && OVER.includes(error.code);
const warn = (text) => process.emitWarning(text, "LockerWarning");

export class Hold {
  #transport;
  #run;
  #ttl;
  #onLost;
  #lost = null;
  #released = false;
  #abort = new AbortController();
  #timer;
  #ends;
  #tellAt;
  #renewAt;
  #backoff;
  #renewals = 0;

  constructor(transport, claim, { run, ttl, sent, onLost }) {
    this.#transport = transport;
    this.#run = run;
    this.#ttl = ttl;
    this.#onLost = onLost;
    this.id = claim.id;
    this.fence = claim.fence;
    this.locks = claim.locks.map(({ pool, lock }) => ({ pool, lock }));
    this.#countFrom(claim, sent);
    this.#watch();
  }

  get pool() {
    return this.locks[0].pool;
  }

  get lock() {
    return this.locks[0].lock;
  }

  get lost() {
    return this.#lost;
  }

  get signal() {
    return this.#abort.signal;
  }

  get renewals() {
    return this.#renewals;
  }

  check() {
    if (this.#lost) throw this.#lost;
  }

  async verify() {
    for (const { pool, lock } of this.locks) {
      if (!(await isHeld(this.#transport, pool, lock, this.fence))) return false;
    }
    return true;
  }

  async release() {
    if (this.#released) return;
    this.#released = true;
    clearTimeout(this.#timer);
    const path = `/api/v1/claims/${this.id}?run=${this.#run}`;
    try {
      await insist(GIVE_BACK, () => this.#transport.send("DELETE", path, undefined, { patience: GIVE_BACK }));
    } catch (error) {
      if (!isOver(error)) throw error;
      this.#lost ??= new Lost(error.message);
    }
    this.check();
  }

  /** Gives the locks back at the end of `withLock`. Only a loss is an error. */
  async _giveBack() {
    try {
      await this.release();
    } catch (error) {
      if (error instanceof Lost) throw error;
      warn(`the locks could not be given back; the server ends the hold with its lease: ${error.message}`);
    }
  }

  /** Counts the lease anew, from just before the request was sent that this claim is the answer to. */
  #countFrom(claim, sent) {
    const left = claim.held_for === undefined ? this.#ttl : seconds(claim.held_for);
    this.#ends = sent + Math.min(this.#ttl, left);
    this.#tellAt = this.#ends - this.#ttl / 3;
    this.#renewAt = sent + this.#ttl / 3;
    this.#backoff = new Backoff(this.#ttl / 12);
  }

  /** Starts renewals and tells a loss in time. */
  #watch() {
    if (this.#released || this.#lost) return;
    const now = clock();
    if (now >= this.#tellAt) {
      const left = Math.max(0, this.#ends - now).toFixed(1);
      return this.#lose(new Lost(`the lease was not renewed in time and ends in ${left} s`));
    }
    if (now >= this.#renewAt) {
      this.#renewAt = Infinity;
      this.#renew();
    }
    const span = Math.min(SLICE, this.#tellAt - now, this.#renewAt - now);
    this.#timer = setTimeout(() => this.#watch(), Math.max(0.01, span) * 1000);
  }

  async #renew() {
    const sent = clock();
    const body = { run: this.#run, fence: this.fence };
    try {
      const patience = this.#ttl / 6;
      const answer = await this.#transport.send("POST", `/api/v1/claims/${this.id}/renew`, body, { patience });
      this.#countFrom(answer.body, sent);
      this.#renewals += 1;
    } catch (error) {
      if (isOver(error)) return this.#lose(new Lost(error.message));
      // Whatever it is, only a later renewal can help.
      this.#renewAt = clock() + this.#backoff.next();
      if (!this.#released) warn(`the lease could not be renewed, trying again: ${error.message}`);
    }
  }

  #lose(lost) {
    if (this.#released || this.#lost) return;
    this.#lost = lost;
    clearTimeout(this.#timer);
    this.#abort.abort(lost);
    this.#onLost?.(lost);
  }
}

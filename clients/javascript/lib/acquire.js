// Asks for locks until they are held, or gives up and leaves nothing behind. The id of the claim and the run are chosen
// once, so every message can be repeated: a lost answer never takes two locks.

import { randomBytes } from "node:crypto";

import { BadRequest, Hopeless, NoAnswer, NotFound, Refused, TimedOut } from "./errors.js";
import { Hold, duration } from "./hold.js";
import { Backoff, clock, insist, monotonic, sleep } from "./retry.js";
import { PATIENCE } from "./transport.js";

/** How long the server is asked to hold one request, in seconds: below the idle timeout of common proxies. */
const WAIT = 25;
/** The longest pause between two attempts, in seconds: well below the 20 s for which a waiter counts as listening. */
const LONGEST_PAUSE = 10;
/** How long a try-lock, or a wait whose time is over, still waits for an answer, in seconds. */
const TRY = 3;
/** How long taking a claim back may take, in seconds. */
const CANCEL = 5;
const WITHDRAWN = ["not_granted", "wrong_fence", "ended"];

function waiting(body) {
  const queue = body.claim?.queue ?? {};
  const holders = body.holders ?? [];
  const { position, ahead = [] } = queue;
  return { position, holders, holderCount: body.holder_count ?? holders.length, ahead, code: body.code, text: body.error };
}

/** One wait for locks, from its first request on. */
export class Acquire {
  #transport;
  #id = randomBytes(20).toString("hex");
  #run = randomBytes(16).toString("hex");
  #body;
  #options;
  #ends;
  #last = null;
  #backoff = new Backoff(LONGEST_PAUSE);

  constructor(transport, body, options) {
    this.#transport = transport;
    this.#body = { ...body, run: this.#run };
    this.#options = options;
    const limit = body.queue ? options.timeout : TRY;
    this.#ends = limit === undefined ? Infinity : monotonic() + limit;
  }

  /** Asks until the claim is held. In every other case the claim is taken back. Null: a try-lock that others hold. */
  async run() {
    let granted;
    try {
      granted = await this.#ask();
    } catch (error) {
      if (!(error instanceof BadRequest || error instanceof NotFound)) await this.#cancel();
      throw error;
    }
    if (granted === null) return null;
    const { ttl, onLost } = this.#options;
    return new Hold(this.#transport, granted.claim, { run: this.#run, ttl, sent: granted.sent, onLost });
  }

  async #ask() {
    // The first request does not wait, so that people see at once who is ahead of them.
    for (let span = 0; ; span = Math.min(WAIT, this.#left())) {
      const asked = monotonic();
      const answer = await this.#put(span);
      if (answer?.status === 423) {
        if (answer.body.code === "locked") return null;
        await this.#waits(answer.body, asked, span);
      } else if (answer) {
        const granted = await this.#confirm(answer.body);
        if (granted) return granted;
      }
    }
  }

  /** The answer; undefined if there is none. */
  async #put(span) {
    const body = span > 0 && this.#body.queue ? { ...this.#body, wait: duration(span) } : this.#body;
    try {
      return await this.#send("PUT", "", body, span);
    } catch (error) {
      if (!(error instanceof NoAnswer)) throw error;
      await this.#pause(this.#backoff.next(), error);
    }
  }

  async #waits(body, asked, span) {
    this.#last = waiting(body);
    this.#options.onWait?.(this.#last);
    const heldOpen = body.parked && monotonic() - asked >= Math.min(0.1, span);
    if (span === 0 || heldOpen) {
      this.#backoff = new Backoff(LONGEST_PAUSE);
      await this.#pause(0);
    } else {
      await this.#pause(this.#backoff.next());
    }
  }

  /** Confirms a grant. Null: the server has withdrawn it in the meantime; ask again. */
  async #confirm({ fence }) {
    this.#backoff = new Backoff(LONGEST_PAUSE);
    for (;;) {
      const sent = clock();
      try {
        return { claim: (await this.#send("POST", "/confirm", { run: this.#run, fence }, 0)).body, sent };
      } catch (error) {
        const withdrawn = error instanceof Refused && WITHDRAWN.includes(error.code);
        if (!withdrawn && !(error instanceof NoAnswer)) throw error;
        await this.#pause(this.#backoff.next(), withdrawn ? undefined : error);
        if (withdrawn) return null;
      }
    }
  }

  #send(method, path, body, span) {
    const { signal } = this.#options;
    const patience = Math.min(PATIENCE + span, this.#left() + TRY);
    return this.#transport.send(method, `/api/v1/claims/${this.#id}${path}`, body, { patience, signal });
  }

  #left() {
    return Math.max(0, this.#ends - monotonic());
  }

  /** Sleeps, but not past the time limit, which ends the wait. */
  async #pause(span, unanswered) {
    if (unanswered instanceof Hopeless) throw unanswered;
    await sleep(Math.min(span, this.#left()), this.#options.signal);
    if (this.#left() > 0) return;
    if (unanswered) throw unanswered;
    throw new TimedOut(`the time for waiting is over: ${this.#last ? this.#last.text : "no news"}`, this.#last);
  }

  async #cancel() {
    const path = `/api/v1/claims/${this.#id}?run=${this.#run}`;
    try {
      await insist(CANCEL, () => this.#transport.send("DELETE", path, undefined, { patience: CANCEL }));
    } catch {
      // Without an answer, the server ends the claim when its deadlines pass. A refusal: nothing of ours is left.
    }
  }
}

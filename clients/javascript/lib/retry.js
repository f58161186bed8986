import os from "node:os";

import { Hopeless, NoAnswer } from "./errors.js";

/** Pauses that double from 1 s and have full jitter, so that a thousand clients do not return at once. */
export class Backoff {
  #longest;
  #next;

  constructor(longest) {
    this.#longest = longest;
    this.#next = Math.min(1, longest);
  }

  next() {
    const pause = Math.random() * this.#next;
    this.#next = Math.min(this.#next * 2, this.#longest);
    return pause;
  }
}

/** Seconds of a clock that also counts while the machine sleeps. */
export const clock = () => os.uptime();

export const monotonic = () => performance.now() / 1000;

/** Resolves after this many seconds, or rejects when the signal is aborted. */
export function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, seconds * 1000);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Repeats a call while there is no answer, for at most this many seconds. */
export async function insist(limit, call) {
  const ends = monotonic() + limit;
  const backoff = new Backoff(1);
  for (;;) {
    try {
      return await call();
    } catch (error) {
      const pause = backoff.next();
      if (!(error instanceof NoAnswer) || error instanceof Hopeless || monotonic() + pause >= ends) throw error;
      await sleep(pause);
    }
  }
}

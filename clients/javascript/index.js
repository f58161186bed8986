// Locks for CI that cannot get stuck and cannot be granted twice. See README.md beside the package.

import { Locker } from "./lib/client.js";

export { Locker } from "./lib/client.js";
export * from "./lib/errors.js";
export { Hold } from "./lib/hold.js";

let shared;
const client = () => (shared ??= Locker.fromEnv());

/** As `Locker.lock`, with the client of the environment. */
export const lock = (...args) => client().lock(...args);
/** As `Locker.tryLock`, with the client of the environment. */
export const tryLock = (...args) => client().tryLock(...args);
/** As `Locker.withLock`, with the client of the environment. */
export const withLock = (...args) => client().withLock(...args);
/** As `Locker.verify`, with the client of the environment. */
export const verify = (...args) => client().verify(...args);

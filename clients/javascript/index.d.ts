/** A request for locks of one pool: one named, several named, or any `count` of them that carry the `labels`. */
export interface Part {
  pool: string;
  lock?: string;
  locks?: string[];
  count?: number;
  labels?: Record<string, string>;
}

/** Members of the API's Owner. */
export type Owner = Record<string, string>;

/** Who holds a lock, or waits: as in the API. */
export interface Party {
  claim: string;
  owner?: Owner;
  pool?: string;
  lock?: string;
  since?: string;
  [member: string]: unknown;
}

/** News about a wait. */
export interface Waiting {
  /** 1 at the head of the queue. */
  position?: number;
  /** Who holds locks that could serve the claim: at most 10 of `holderCount`. */
  holders: Party[];
  holderCount: number;
  /** The waiters directly ahead, nearest first: at most 5. */
  ahead: Party[];
  code: "waiting" | "self_wait" | "deadlock";
  /** The same in words. */
  text: string;
}

export interface TryOptions extends Omit<Part, "pool"> {
  /** Locks of more pools: all or nothing. */
  also?: Part[];
  /** Seconds; 60 unless given, at least 3. */
  ttl?: number;
  /** Called before the lease ends. */
  onLost?: (lost: Lost) => void;
  key?: string;
  requestor?: string;
  priority?: number;
  reason?: string;
}

export interface LockOptions extends TryOptions {
  /** The longest wait in seconds; no limit unless given. */
  timeout?: number;
  /** Called with each news of the wait. */
  onWait?: (news: Waiting) => void;
  /** Ends the wait: the promise is rejected with the signal's reason. */
  signal?: AbortSignal;
}

export interface Access {
  username?: string;
  password?: string;
  /** A bearer token, instead of user name and password. */
  token?: string;
  /** A PEM file: trust only these issuers. */
  caFile?: string;
  certFile?: string;
  keyFile?: string;
  /** Shown to others; says who asks. */
  owner?: Owner;
}

export interface HistoryFilters {
  limit?: number;
  lock?: string;
  claim?: string;
  who?: string;
  kind?: string;
  since?: string;
  until?: string;
}

/** A client of one store, which one or more servers serve. */
export class Locker {
  /** `servers` is one URL, several separated by commas, or a list. */
  constructor(servers?: string | string[], access?: Access);
  /** A client of the variables that the command line reads, and of `LOCKER_TOKEN`. Certificates are files. */
  static fromEnv(env?: Record<string, string | undefined>): Locker;
  /** Waits until the locks are held. Rejected with `TimedOut`, `Refused` or `Hopeless`; nothing is held then. */
  lock(pool: string, options?: LockOptions): Promise<Hold>;
  /** Takes the locks now; null if others have them. Rejected with `NoAnswer` after 3 s without answer. */
  tryLock(pool: string, options?: TryOptions): Promise<Hold | null>;
  /** Holds the locks while `work` runs. If it ends well although they were lost, the promise is rejected with `Lost`. */
  withLock<T>(pool: string, options: LockOptions, work: (hold: Hold) => Promise<T> | T): Promise<T>;
  withLock<T>(pool: string, work: (hold: Hold) => Promise<T> | T): Promise<T>;
  /** Whether this fence belongs to a present holder of the lock. Anything but true means stop. */
  verify(pool: string, lock: string, fence: number): Promise<boolean>;
  /** What happened, the newest first. */
  history(pool?: string | null, filters?: HistoryFilters): Promise<Record<string, any>[]>;
  /** A lock with its labels, its metadata and its holders. */
  getLock(pool: string, lock: string): Promise<Record<string, any>>;
  /** Version, store and time of the server. */
  info(): Promise<Record<string, any>>;
}

/** Locks that are held. Their lease is renewed in the background. */
export class Hold {
  private constructor();
  /** The id of the claim. */
  readonly id: string;
  /** The number of this grant, larger than that of every earlier grant of these locks. */
  readonly fence: number;
  readonly locks: { pool: string; lock: string }[];
  /** Of the first lock. */
  readonly pool: string;
  /** The name of the first lock. */
  readonly lock: string;
  /** Why the locks are lost, or null while they are safely held. */
  readonly lost: Lost | null;
  /** Aborted with `Lost` as soon as the locks are lost: pass it to what must stop then. */
  readonly signal: AbortSignal;
  /** How many renewals the server has answered. */
  readonly renewals: number;
  /** Throws `Lost` if the locks are lost, as far as is known here. Asks nobody. */
  check(): void;
  /** Asks the server whether all locks are still held by this fence. */
  verify(): Promise<boolean>;
  /** Gives the locks back. Harmless to repeat. Rejected with `Lost` if they were lost before. */
  release(): Promise<void>;
}

export class LockerError extends Error {}
/** No usable answer: asking again is safe and may help. */
export class NoAnswer extends LockerError {}
/** No server has ever answered, and what is wrong does not pass by itself. */
export class Hopeless extends NoAnswer {}
/** The time for waiting is over. Nothing is held. */
export class TimedOut extends LockerError {
  readonly waiting: Waiting | null;
}
/** The locks are lost, or will be before they can be renewed. Stop what needs them. */
export class Lost extends LockerError {}
/** The server refused the request. */
export class Refused extends LockerError {
  /** The stable word. */
  readonly code: string;
  readonly status: number;
  readonly problems: string[];
  readonly claim?: Record<string, any>;
}
export class BadRequest extends Refused {}
export class Denied extends Refused {}
export class NotFound extends Refused {}
export class Conflict extends Refused {}
export class Ended extends Conflict {}

export function lock(pool: string, options?: LockOptions): Promise<Hold>;
export function tryLock(pool: string, options?: TryOptions): Promise<Hold | null>;
export function withLock<T>(pool: string, options: LockOptions, work: (hold: Hold) => Promise<T> | T): Promise<T>;
export function withLock<T>(pool: string, work: (hold: Hold) => Promise<T> | T): Promise<T>;
export function verify(pool: string, lock: string, fence: number): Promise<boolean>;

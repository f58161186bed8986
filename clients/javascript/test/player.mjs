// Does with the client what each line of the input says; see ../../README.md.

import readline from "node:readline";

import { Locker, LockerError, Refused } from "../index.js";

/** How long the player waits for something that must happen, in milliseconds. */
const PATIENCE = 80_000;

/** An error of the work itself. */
class Mine extends Error {
  name = "Mine";
}

const tasks = new Map();
let client;

const shown = ({ locks, fence, id }) => ({ locks: locks.map(({ pool, lock }) => [pool, lock]), fence, id });

async function until(what, test) {
  for (const end = Date.now() + PATIENCE; !test(); await new Promise((done) => setTimeout(done, 10))) {
    if (Date.now() > end) throw new Error(`not within ${PATIENCE} ms: ${what}`);
  }
}

/** A lock that is asked for in the background, and what became of it. */
function start(task, work) {
  task.ended = false;
  task.error = undefined;
  task.done = work(task).then(
    () => (task.ended = true),
    (error) => {
      task.error = error;
      task.ended = true;
    },
  );
  return {};
}

function begin(step, work) {
  const task = { news: [], lost: [] };
  tasks.set(step.as, task);
  return start(task, work);
}

async function result(task) {
  await until("an end of the wait", () => task.ended);
  if (task.error) throw task.error;
  return task.hold ? shown(task.hold) : { none: true };
}

const steps = {
  open: ({ do: _, servers, username, password, token, ca_file, cert_file, key_file }) => {
    const access = { username, password, token, caFile: ca_file, certFile: cert_file, keyFile: key_file };
    client = new Locker(servers, { ...access, owner: { person: "player" } });
    return {};
  },
  lock: (step) =>
    begin(step, async (task) => {
      const told = { onWait: (news) => task.news.push(news), onLost: (lost) => task.lost.push(lost) };
      task.hold = await client.lock(step.pool, { ...told, ...step.with });
    }),
  try: (step) =>
    begin(step, async (task) => {
      task.hold = await client.tryLock(step.pool, step.with);
    }),
  await: ({ as }) => result(tasks.get(as)),
  waits: async ({ as }) => {
    const task = tasks.get(as);
    await until("news", () => task.news.length > 0);
    const [{ position, holders, holderCount, code }] = task.news;
    return { position, holder: holders[0]?.owner.person, holder_count: holderCount, code };
  },
  release: async ({ as }) => {
    await tasks.get(as).hold.release();
    return {};
  },
  release_later: ({ as }) => start(tasks.get(as), (task) => task.hold.release()),
  released: ({ as }) => result(tasks.get(as)),
  lost: async ({ as }) => {
    const { lost, hold } = tasks.get(as);
    await until("a loss", () => lost.length > 0);
    if (lost.length > 1 || hold.lost !== lost[0] || hold.signal.reason !== lost[0]) throw new Error("told otherwise");
    return { text: lost[0].message };
  },
  renewed: async ({ as }) => {
    const { hold } = tasks.get(as);
    const before = hold.renewals;
    await until("a renewal", () => hold.renewals > before || hold.lost);
    return { lost: hold.lost?.message, renewals: hold.renewals };
  },
  block: (step) =>
    client.withLock(step.pool, step.with, (hold) => {
      if (step.fail) throw new Mine("of the block");
      return shown(hold);
    }),
  block_later: (step) =>
    begin(step, (task) =>
      client.withLock(step.pool, step.with, async (hold) => {
        task.hold = hold;
        task.ended = true;
        await until("leave", () => task.left);
      }),
    ),
  end_block: async ({ as }) => {
    const task = tasks.get(as);
    task.left = true;
    await task.done;
    return result(task);
  },
  verify: async ({ pool, lock, fence }) => ({ held: await client.verify(pool, lock, fence) }),
  verify_hold: async ({ as }) => ({ held: await tasks.get(as).hold.verify() }),
  history: async ({ pool, filters }) => ({ kinds: (await client.history(pool, filters)).map(({ kind }) => kind) }),
  get_lock: async ({ pool, lock }) => ({ lock: await client.getLock(pool, lock) }),
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const step = JSON.parse(line);
  let answer;
  try {
    answer = await steps[step.do](step);
  } catch (error) {
    if (!(error instanceof LockerError || error instanceof Mine)) throw error;
    answer = { error: error.name, text: error.message };
    if (error instanceof Refused) Object.assign(answer, { code: error.code, status: error.status });
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0);

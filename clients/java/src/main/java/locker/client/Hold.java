package locker.client;

import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.regex.Pattern;
import locker.client.LockerException.Conflict;
import locker.client.LockerException.Lost;
import locker.client.LockerException.Refused;
import locker.client.Retry.Backoff;

/**
 * Locks that are held. A thread renews their lease.
 *
 * <pre>
 * 0 ---------- ttl/3 ------------ 2/3 ttl ------------------- ttl
 *              renew; again if    told that it is lost        the server may give the locks to others
 *              that fails
 * </pre>
 *
 * The server counts from when it receives a renewal, this side from before it was sent, so this side's lease always ends
 * first.
 */
public final class Hold implements AutoCloseable {
    /** How long giving the locks back may take without an answer, in seconds. After that the lease ends by itself. */
    private static final double GIVE_BACK = 10;
    /** The longest sleep in one piece, in seconds: sleeps do not count the time that the machine is suspended. */
    private static final double SLICE = 0.5;
    /** Refusals that say that the claim no longer holds its locks. Others, such as refused credentials, do not say so. */
    private static final Set<String> OVER =
            Set.of("ended", "no_such_claim", "not_granted", "wrong_fence", "superseded_run");

    private static final Pattern DURATION = Pattern.compile("(\\d+)\\s*(ms|s|m|h|day|d)");
    private static final Map<String, Double> UNITS =
            Map.of("ms", 0.001, "s", 1.0, "m", 60.0, "h", 3600.0, "day", 86400.0, "d", 86400.0);
    private static final System.Logger LOG = System.getLogger("locker");

    private final Transport transport;
    private final String run;
    private final Request request;
    private final double ttl;
    private final String id;
    private final long fence;
    private final List<LockRef> locks;
    private final Object guard = new Object();
    // All of the following only under the guard.
    private Lost lost;
    private boolean released;
    private long renewals;
    private double ends;
    private double tellAt;
    private double renewAt;
    private Backoff backoff;

    /** A lock with its pool. */
    public record LockRef(String pool, String lock) {}

    Hold(Transport transport, Map<String, Object> claim, String run, Request request, double sent) {
        this.transport = transport;
        this.run = run;
        this.request = request;
        this.ttl = request.ttlSeconds();
        this.id = String.valueOf(claim.get("id"));
        this.fence = ((Number) claim.get("fence")).longValue();
        this.locks = Json.objects(claim.get("locks")).stream()
                .map(one -> new LockRef(String.valueOf(one.get("pool")), String.valueOf(one.get("lock"))))
                .toList();
        countFrom(claim, sent);
        start("locker-lease", this::watch);
    }

    /** A duration as the API reads it. */
    static String duration(double seconds) {
        return Math.round(seconds * 1000) + "ms";
    }

    /** A duration as the API writes it: 1m5s, 4s352ms. */
    private static double seconds(String text) {
        return DURATION.matcher(text)
                .results()
                .mapToDouble(found -> Long.parseLong(found.group(1)) * UNITS.get(found.group(2)))
                .sum();
    }

    static boolean isHeld(Transport transport, String pool, String lock, long fence) throws InterruptedException {
        Map<String, Object> query = Map.of("pool", pool, "lock", lock, "fence", fence);
        try {
            Retry.insist(Transport.PATIENCE, () -> transport.get("/api/v1/verify", query));
            return true;
        } catch (Conflict error) {
            if (error.code().equals("not_held")) {
                return false;
            }
            throw error;
        }
    }

    /** The id of the claim. */
    public String id() {
        return id;
    }

    /** The number of this grant, larger than that of every earlier grant of these locks. */
    public long fence() {
        return fence;
    }

    /** All locks, by pool and name. */
    public List<LockRef> locks() {
        return locks;
    }

    /** The first lock. */
    public LockRef lock() {
        return locks.get(0);
    }

    /** Why the locks are lost, or null while they are safely held. */
    public Lost lost() {
        synchronized (guard) {
            return lost;
        }
    }

    /** How many renewals the server has answered. */
    public long renewals() {
        synchronized (guard) {
            return renewals;
        }
    }

    /** Throws {@code Lost} if the locks are lost, as far as is known here. Asks nobody. */
    public void check() {
        Lost found = lost();
        if (found != null) {
            throw found;
        }
    }

    /** Asks the server whether all locks are still held by this fence. */
    public boolean verify() throws InterruptedException {
        for (LockRef one : locks) {
            if (!isHeld(transport, one.pool(), one.lock(), fence)) {
                return false;
            }
        }
        return true;
    }

    /**
     * Gives the locks back. Harmless to repeat.
     *
     * @throws LockerException {@code Lost} if they were lost before, and {@code NoAnswer} if the server does not answer
     *     for 10 s: the locks come back with the end of the lease then
     */
    public void release() {
        synchronized (guard) {
            if (released) {
                return;
            }
            released = true;
            guard.notifyAll();
        }
        String path = "/api/v1/claims/" + id + "?run=" + run;
        try {
            Retry.insistAnyway(GIVE_BACK, () -> transport.send("DELETE", path, null, GIVE_BACK));
        } catch (Refused error) {
            if (!OVER.contains(error.code())) {
                throw error;
            }
            synchronized (guard) {
                lost = lost != null ? lost : new Lost(error.getMessage());
            }
        }
        check();
    }

    /** Gives the locks back. Only a loss is an error. */
    @Override
    public void close() {
        try {
            release();
        } catch (Lost error) {
            throw error;
        } catch (LockerException error) {
            LOG.log(
                    System.Logger.Level.WARNING,
                    "the locks could not be given back; the server ends the hold with its lease: " + error.getMessage());
        }
    }

    private static void start(String name, Runnable work) {
        Thread thread = new Thread(work, name);
        thread.setDaemon(true);
        thread.start();
    }

    /** Counts the lease anew, from just before the request was sent that this claim is the answer to. */
    private void countFrom(Map<String, Object> claim, double sent) {
        synchronized (guard) {
            double left = claim.get("held_for") instanceof String text ? seconds(text) : ttl;
            ends = sent + Math.min(ttl, left);
            tellAt = ends - ttl / 3;
            renewAt = sent + ttl / 3;
            backoff = new Backoff(ttl / 12);
            guard.notifyAll();
        }
    }

    /** Starts renewals and tells a loss in time. Requests run in other threads, so none can delay this one. */
    private void watch() {
        Lost found;
        synchronized (guard) {
            double now = Retry.clock();
            while (now < tellAt) {
                if (released || lost != null) {
                    return;
                }
                if (now >= renewAt) {
                    renewAt = Double.POSITIVE_INFINITY;
                    start("locker-renewal", this::renew);
                }
                double span = Math.min(SLICE, Math.min(tellAt, renewAt) - now);
                try {
                    guard.wait(Math.max(1, (long) (span * 1000)));
                } catch (InterruptedException error) {
                    // Nobody has this thread to interrupt it.
                    throw new IllegalStateException(error);
                }
                now = Retry.clock();
            }
            String left = String.format(Locale.ROOT, "%.1f", Math.max(0, ends - now));
            found = new Lost("the lease was not renewed in time and ends in " + left + " s");
        }
        lose(found);
    }

    private void renew() {
        double sent = Retry.clock();
        try {
            Map<String, Object> body = Map.of("run", run, "fence", fence);
            countFrom(transport.send("POST", "/api/v1/claims/" + id + "/renew", body, ttl / 6).body(), sent);
            synchronized (guard) {
                renewals++;
            }
        } catch (Refused error) {
            if (OVER.contains(error.code())) {
                lose(new Lost(error.getMessage()));
            } else {
                again(error);
            }
        } catch (InterruptedException | RuntimeException error) {
            // Whatever it is, only a later renewal can help.
            again(error);
        }
    }

    private void again(Exception error) {
        synchronized (guard) {
            renewAt = Retry.clock() + backoff.next();
            guard.notifyAll();
        }
        LOG.log(System.Logger.Level.WARNING, "the lease could not be renewed, trying again: " + error.getMessage());
    }

    private void lose(Lost found) {
        synchronized (guard) {
            if (released || lost != null) {
                return;
            }
            lost = found;
            guard.notifyAll();
        }
        request.lossListener().accept(found);
    }
}

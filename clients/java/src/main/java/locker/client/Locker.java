package locker.client;

import java.net.InetAddress;
import java.net.UnknownHostException;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/** A client of one store, which one or more servers serve. Threads may share it. */
public final class Locker {
    private final Transport transport;
    private final Map<String, String> owner;

    /** A client with this access. */
    public Locker(Access access) {
        access.check();
        transport = new Transport(access);
        owner = access.owner() != null ? access.owner() : Map.of("person", person());
    }

    /** A client of the servers that the environment names. */
    public static Locker fromEnv() {
        return new Locker(Access.fromEnv());
    }

    @Override
    public String toString() {
        return "Locker(" + transport + ")";
    }

    /** Waits until any lock of the pool is held. */
    public Hold lock(String pool) throws InterruptedException {
        return lock(Request.of(pool));
    }

    /**
     * Waits until the locks are held.
     *
     * @throws LockerException {@code TimedOut}, {@code Refused} or {@code Hopeless}; nothing is held then
     */
    public Hold lock(Request request) throws InterruptedException {
        return new Acquire(transport, request, true, owner).run().orElseThrow();
    }

    /**
     * Takes the locks now; empty if others have them.
     *
     * @throws LockerException {@code NoAnswer} after 3 s without answer
     */
    public Optional<Hold> tryLock(Request request) throws InterruptedException {
        return new Acquire(transport, request, false, owner).run();
    }

    /** Whether this fence belongs to a present holder of the lock. Anything but true means stop. */
    public boolean verify(String pool, String lock, long fence) throws InterruptedException {
        return Hold.isHeld(transport, pool, lock, fence);
    }

    /** The last entries of a pool's history, the newest first. */
    public List<Map<String, Object>> history(String pool, int limit) throws InterruptedException {
        return history(Map.of("pool", pool, "limit", limit));
    }

    /** History entries, the newest first, by any filters of the API, such as {@code pool}, {@code lock}, {@code who}. */
    public List<Map<String, Object>> history(Map<String, ?> filters) throws InterruptedException {
        Map<String, Object> query = new TreeMap<>(filters);
        query.put("order", "newest_first");
        return Json.objects(get("/api/v1/changes", query).get("items"));
    }

    /** A lock with its labels, its metadata and its holders. */
    public Map<String, Object> getLock(String pool, String lock) throws InterruptedException {
        return get("/api/v1/pools/" + Transport.encode(pool) + "/locks/" + Transport.encode(lock), Map.of());
    }

    /** Version, store and time of the server. */
    public Map<String, Object> info() throws InterruptedException {
        return get("/api/v1/info", Map.of());
    }

    private Map<String, Object> get(String path, Map<String, ?> query) throws InterruptedException {
        return Retry.insist(Transport.PATIENCE, () -> transport.get(path, query)).body();
    }

    private static String person() {
        String host;
        try {
            host = InetAddress.getLocalHost().getHostName();
        } catch (UnknownHostException error) {
            host = "unknown";
        }
        return System.getProperty("user.name", "somebody") + "@" + host;
    }
}

package locker.client;

import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import locker.client.LockerException.Lost;

/** Which locks to take, for how long to wait for them, and whom to tell. */
public final class Request {
    /** The shortest ttl, in seconds. Below 15 s little time is left to stop. */
    private static final double SHORTEST_TTL = 3;

    private final Map<String, Object> body = new LinkedHashMap<>();
    private final List<Map<String, Object>> also = new ArrayList<>();
    private double ttl = 60;
    private Double timeout;
    private Consumer<Waiting> onWait = news -> {};
    private Consumer<Lost> onLost = lost -> {};

    private Request(Part part) {
        body.putAll(part.body());
    }

    /** Any one lock of the pool. */
    public static Request of(String pool) {
        return new Request(Part.of(pool));
    }

    /** These locks of a pool. */
    public static Request of(Part part) {
        return new Request(part);
    }

    /** Locks of one more pool: all or nothing. */
    public Request also(Part part) {
        also.add(part.body());
        return this;
    }

    /** How long the lease lasts without a renewal: 60 s unless given, at least 3 s. */
    public Request ttl(Duration ttl) {
        this.ttl = ttl.toMillis() / 1000.0;
        if (this.ttl < SHORTEST_TTL) {
            throw new IllegalArgumentException("a ttl of " + ttl + " leaves no time to stop: at least 3 s");
        }
        return this;
    }

    /** The longest wait; no limit unless given. A try-lock has none. */
    public Request timeout(Duration timeout) {
        this.timeout = timeout.toMillis() / 1000.0;
        return this;
    }

    /** Called with each news of the wait, from the waiting thread. */
    public Request onWait(Consumer<Waiting> onWait) {
        this.onWait = onWait;
        return this;
    }

    /** Called from another thread, before the lease ends. */
    public Request onLost(Consumer<Lost> onLost) {
        this.onLost = onLost;
        return this;
    }

    /** The reason, for people. */
    public Request reason(String reason) {
        return with("reason", reason);
    }

    /** Claims with an equal key may hold the same lock together. */
    public Request key(String key) {
        return with("key", key);
    }

    /** Who shares the key. */
    public Request requestor(String requestor) {
        return with("requestor", requestor);
    }

    /** In a pool with the order {@code priority}, claims with a higher value come first. */
    public Request priority(int priority) {
        return with("priority", priority);
    }

    private Request with(String name, Object value) {
        body.put(name, value);
        return this;
    }

    /** The body of the claim. */
    Map<String, Object> body(boolean queue, Map<String, String> owner) {
        Map<String, Object> all = new LinkedHashMap<>(body);
        all.putAll(Map.of("scope", "lease", "ttl", Hold.duration(ttl), "confirm", true, "queue", queue, "owner", owner));
        if (!also.isEmpty()) {
            all.put("also", also);
        }
        return all;
    }

    double ttlSeconds() {
        return ttl;
    }

    Double timeoutSeconds() {
        return timeout;
    }

    Consumer<Waiting> waitListener() {
        return onWait;
    }

    Consumer<Lost> lossListener() {
        return onLost;
    }
}

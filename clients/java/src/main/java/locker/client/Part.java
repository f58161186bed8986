package locker.client;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Locks of one pool: one named, several named, or any number of them that carry some labels. */
public final class Part {
    private final Map<String, Object> body = new LinkedHashMap<>();

    private Part(String pool) {
        body.put("pool", pool);
    }

    /** Any one lock of the pool. */
    public static Part of(String pool) {
        return new Part(pool);
    }

    /** This lock. */
    public Part lock(String name) {
        body.put("lock", name);
        return this;
    }

    /** All of these locks. */
    public Part locks(List<String> names) {
        body.put("locks", List.copyOf(names));
        return this;
    }

    /** This many locks. */
    public Part count(int count) {
        body.put("count", count);
        return this;
    }

    /** Only locks that carry all of these. */
    public Part labels(Map<String, String> labels) {
        body.put("labels", Map.copyOf(labels));
        return this;
    }

    Map<String, Object> body() {
        return body;
    }
}

package locker.client;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import locker.client.LockerException.Lost;
import locker.client.LockerException.Refused;

/** Does with the client what each line of the input says; see clients/README.md. */
final class Player {
    /** How long the player waits for something that must happen, in seconds. */
    private static final long PATIENCE = 80;

    private final Map<String, Task> tasks = new HashMap<>();
    private Locker client;

    /** An error of the block itself. */
    private static final class Mine extends RuntimeException {
        private static final long serialVersionUID = 1;
    }

    private interface Work {
        void run() throws Exception;
    }

    /** A lock that is asked for in the background, and what became of it. */
    private static final class Task {
        private final BlockingQueue<Waiting> news = new LinkedBlockingQueue<>();
        private final BlockingQueue<Lost> lost = new LinkedBlockingQueue<>();
        private final CountDownLatch leave = new CountDownLatch(1);
        private volatile CountDownLatch ended = new CountDownLatch(1);
        private volatile Exception error;
        private volatile Hold hold;
        private Thread thread;

        void start(Work work) {
            ended = new CountDownLatch(1);
            thread = new Thread(() -> {
                try {
                    work.run();
                } catch (Exception found) {
                    error = found;
                }
                ended.countDown();
            });
            thread.setDaemon(true);
            thread.start();
        }

        Map<String, Object> result() throws Exception {
            if (!ended.await(PATIENCE, TimeUnit.SECONDS)) {
                throw new IllegalStateException("no end of the wait");
            }
            if (error != null) {
                throw error;
            }
            return hold == null ? Map.of("none", true) : shown(hold);
        }
    }

    private static Map<String, Object> shown(Hold hold) {
        List<List<String>> locks = hold.locks().stream().map(one -> List.of(one.pool(), one.lock())).toList();
        return Map.of("locks", locks, "fence", hold.fence(), "id", hold.id());
    }

    public static void main(String[] args) throws Exception {
        Player player = new Player();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            Map<String, Object> answer;
            try {
                answer = player.play(Json.object(Json.read(line)));
            } catch (LockerException | Mine error) {
                answer = failure(error);
            }
            System.out.println(Json.write(answer));
        }
    }

    private static Map<String, Object> failure(RuntimeException error) {
        boolean isBase = error.getClass() == LockerException.class;
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("error", isBase ? "LockerError" : error.getClass().getSimpleName());
        answer.put("text", String.valueOf(error.getMessage()));
        if (error instanceof Refused refused) {
            answer.put("code", refused.code());
            answer.put("status", refused.status());
        }
        return answer;
    }

    private static String text(Map<String, Object> step, String name) {
        return (String) step.get(name);
    }

    private Task task(Map<String, Object> step) {
        return tasks.get(text(step, "as"));
    }

    private Task begin(Map<String, Object> step) {
        Task task = new Task();
        tasks.put(text(step, "as"), task);
        return task;
    }

    private Map<String, Object> play(Map<String, Object> step) throws Exception {
        switch (text(step, "do")) {
            case "open" -> open(step);
            case "lock" -> {
                Task task = begin(step);
                Request request = request(step).onWait(task.news::add).onLost(task.lost::add);
                task.start(() -> task.hold = client.lock(request));
            }
            case "try" -> {
                Task task = begin(step);
                task.start(() -> task.hold = client.tryLock(request(step)).orElse(null));
            }
            case "await", "released" -> {
                return task(step).result();
            }
            case "release" -> task(step).hold.release();
            case "release_later" -> task(step).start(() -> task(step).hold.release());
            case "block_later" -> {
                Task task = begin(step);
                task.start(() -> {
                    try (Hold hold = client.lock(request(step))) {
                        task.hold = hold;
                        task.ended.countDown();
                        task.leave.await(PATIENCE, TimeUnit.SECONDS);
                    }
                });
            }
            case "end_block" -> {
                task(step).leave.countDown();
                task(step).thread.join(PATIENCE * 1000);
                return task(step).result();
            }
            default -> {
                return look(step);
            }
        }
        return Map.of();
    }

    private Map<String, Object> look(Map<String, Object> step) throws Exception {
        String pool = text(step, "pool");
        switch (text(step, "do")) {
            case "waits" -> {
                Waiting news = task(step).news.poll(PATIENCE, TimeUnit.SECONDS);
                Map<String, Object> owner = Json.object(news.holders().get(0).get("owner"));
                return Map.of(
                        "position", news.position(), "holder", owner.get("person"),
                        "holder_count", news.holderCount(), "code", news.code());
            }
            case "lost" -> {
                Lost lost = task(step).lost.poll(PATIENCE, TimeUnit.SECONDS);
                if (lost != task(step).hold.lost() || !task(step).lost.isEmpty()) {
                    throw new IllegalStateException("told otherwise");
                }
                return Map.of("text", lost.getMessage());
            }
            case "renewed" -> {
                return renewed(task(step).hold);
            }
            case "block" -> {
                try (Hold hold = client.lock(request(step))) {
                    if (Boolean.TRUE.equals(step.get("fail"))) {
                        throw new Mine();
                    }
                    return shown(hold);
                }
            }
            case "verify" -> {
                return Map.of("held", client.verify(pool, text(step, "lock"), (Long) step.get("fence")));
            }
            case "verify_hold" -> {
                return Map.of("held", task(step).hold.verify());
            }
            case "history" -> {
                Map<String, Object> filters = new LinkedHashMap<>(Json.object(step.get("filters")));
                if (pool != null) {
                    filters.put("pool", pool);
                }
                return Map.of("kinds", client.history(filters).stream().map(entry -> entry.get("kind")).toList());
            }
            case "get_lock" -> {
                return Map.of("lock", client.getLock(pool, text(step, "lock")));
            }
            default -> throw new IllegalStateException("unknown step");
        }
    }

    private static Map<String, Object> renewed(Hold hold) throws InterruptedException {
        long before = hold.renewals();
        long end = System.nanoTime() + PATIENCE * 1_000_000_000;
        while (hold.renewals() == before && hold.lost() == null && System.nanoTime() < end) {
            Thread.sleep(10);
        }
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("lost", hold.lost() == null ? null : hold.lost().getMessage());
        answer.put("renewals", hold.renewals());
        return answer;
    }

    private void open(Map<String, Object> step) {
        Access access = Access.to(text(step, "servers")).owner(Map.of("person", "player"));
        access.token(text(step, "token")).password(text(step, "username"), text(step, "password"));
        if (step.get("ca_file") instanceof String file) {
            access.caFile(Path.of(file));
        }
        if (step.get("cert_file") instanceof String file) {
            access.certificate(Path.of(file), Path.of(text(step, "key_file")));
        }
        client = new Locker(access);
    }

    private static Request request(Map<String, Object> step) {
        Map<String, Object> with = Json.object(step.get("with"));
        Request request = Request.of(part(text(step, "pool"), with));
        Json.objects(with.get("also")).forEach(one -> request.also(part(text(one, "pool"), one)));
        with.forEach((name, value) -> {
            switch (name) {
                case "ttl" -> request.ttl(Duration.ofSeconds((Long) value));
                case "timeout" -> request.timeout(Duration.ofSeconds((Long) value));
                case "priority" -> request.priority(((Long) value).intValue());
                case "reason" -> request.reason((String) value);
                case "lock", "locks", "count", "labels", "also" -> {
                    // Above.
                }
                default -> throw new IllegalStateException("unknown option " + name);
            }
        });
        return request;
    }

    private static Part part(String pool, Map<String, Object> with) {
        Part part = Part.of(pool);
        if (with.get("lock") instanceof String lock) {
            part.lock(lock);
        }
        if (with.containsKey("locks")) {
            part.locks(Json.list(with.get("locks")).stream().map(String::valueOf).toList());
        }
        if (with.get("count") instanceof Long count) {
            part.count(count.intValue());
        }
        if (with.containsKey("labels")) {
            Map<String, String> labels = new HashMap<>();
            Json.object(with.get("labels")).forEach((name, value) -> labels.put(name, (String) value));
            part.labels(labels);
        }
        return part;
    }
}

package locker.client;

import java.security.SecureRandom;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import locker.client.LockerException.BadRequest;
import locker.client.LockerException.Hopeless;
import locker.client.LockerException.NoAnswer;
import locker.client.LockerException.NotFound;
import locker.client.LockerException.Refused;
import locker.client.LockerException.TimedOut;
import locker.client.Retry.Backoff;
import locker.client.Transport.Answer;

/**
 * One wait for locks, from its first request on. The id of the claim and the run are chosen once, so every message can be
 * repeated: a lost answer never takes two locks.
 */
final class Acquire {
    /** How long the server is asked to hold one request, in seconds: below the idle timeout of common proxies. */
    private static final double WAIT = 25;
    /** The longest pause between two attempts, in seconds: well below the 20 s for which a waiter counts as listening. */
    private static final double LONGEST_PAUSE = 10;
    /** How long a try-lock, or a wait whose time is over, still waits for an answer, in seconds. */
    private static final double TRY = 3;
    /** How long taking a claim back may take, in seconds. */
    private static final double CANCEL = 5;

    private static final Set<String> WITHDRAWN = Set.of("not_granted", "wrong_fence", "ended");
    private static final SecureRandom RANDOM = new SecureRandom();

    private final Transport transport;
    private final Request request;
    private final Map<String, Object> body;
    private final boolean queue;
    private final String path = "/api/v1/claims/" + random(20);
    private final String run = random(16);
    private final double ends;
    private Waiting last;
    private Backoff backoff = new Backoff(LONGEST_PAUSE);

    Acquire(Transport transport, Request request, boolean queue, Map<String, String> owner) {
        this.transport = transport;
        this.request = request;
        this.queue = queue;
        this.body = request.body(queue, owner);
        body.put("run", run);
        Double limit = queue ? request.timeoutSeconds() : Double.valueOf(TRY);
        this.ends = limit == null ? Double.POSITIVE_INFINITY : Retry.monotonic() + limit;
    }

    private static String random(int bytes) {
        byte[] found = new byte[bytes];
        RANDOM.nextBytes(found);
        return HexFormat.of().formatHex(found);
    }

    /** Asks until the claim is held. In every other case the claim is taken back. Empty: a try-lock that others hold. */
    Optional<Hold> run() throws InterruptedException {
        boolean settled = false;
        try {
            Optional<Hold> hold = ask();
            settled = true;
            return hold;
        } catch (BadRequest | NotFound error) {
            settled = true;
            throw error;
        } finally {
            if (!settled) {
                cancel();
            }
        }
    }

    private Optional<Hold> ask() throws InterruptedException {
        // The first request does not wait, so that people see at once who is ahead of them.
        for (double span = 0; ; span = Math.min(WAIT, left())) {
            double asked = Retry.monotonic();
            Answer answer = put(span);
            if (answer == null) {
                continue;
            }
            if (answer.status() != 423) {
                Hold hold = confirm(answer.body());
                if (hold != null) {
                    return Optional.of(hold);
                }
            } else if ("locked".equals(answer.body().get("code"))) {
                return Optional.empty();
            } else {
                waits(answer.body(), asked, span);
            }
        }
    }

    /** The answer; null if there is none. */
    private Answer put(double span) throws InterruptedException {
        Map<String, Object> asked = new LinkedHashMap<>(body);
        if (span > 0 && queue) {
            asked.put("wait", Hold.duration(span));
        }
        try {
            return transport.send("PUT", path, asked, patience(span));
        } catch (NoAnswer error) {
            pause(backoff.next(), error);
            return null;
        }
    }

    private void waits(Map<String, Object> answer, double asked, double span) throws InterruptedException {
        last = Waiting.of(answer);
        request.waitListener().accept(last);
        boolean heldOpen =
                Boolean.TRUE.equals(answer.get("parked")) && Retry.monotonic() - asked >= Math.min(0.1, span);
        if (span == 0 || heldOpen) {
            backoff = new Backoff(LONGEST_PAUSE);
            pause(0, null);
        } else {
            pause(backoff.next(), null);
        }
    }

    /** Confirms a grant. Null: the server has withdrawn it in the meantime; ask again. */
    private Hold confirm(Map<String, Object> granted) throws InterruptedException {
        backoff = new Backoff(LONGEST_PAUSE);
        while (true) {
            double sent = Retry.clock();
            try {
                Map<String, Object> body = Map.of("run", run, "fence", granted.get("fence"));
                Map<String, Object> claim = transport.send("POST", path + "/confirm", body, patience(0)).body();
                return new Hold(transport, claim, run, request, sent);
            } catch (NoAnswer error) {
                pause(backoff.next(), error);
            } catch (Refused error) {
                if (!WITHDRAWN.contains(error.code())) {
                    throw error;
                }
                pause(backoff.next(), null);
                return null;
            }
        }
    }

    private double left() {
        return Math.max(0, ends - Retry.monotonic());
    }

    private double patience(double span) {
        return Math.min(Transport.PATIENCE + span, left() + TRY);
    }

    /** Sleeps, but not past the time limit, which ends the wait. */
    private void pause(double span, NoAnswer unanswered) throws InterruptedException {
        if (unanswered instanceof Hopeless) {
            throw unanswered;
        }
        Retry.sleep(Math.min(span, left()));
        if (left() > 0) {
            return;
        }
        if (unanswered != null) {
            throw unanswered;
        }
        throw new TimedOut("the time for waiting is over: " + (last != null ? last.text() : "no news"), last);
    }

    private void cancel() {
        try {
            Retry.insistAnyway(CANCEL, () -> transport.send("DELETE", path + "?run=" + run, null, CANCEL));
        } catch (NoAnswer | Refused error) {
            // Without an answer, the server ends the claim when its deadlines pass. A refusal: nothing of ours is left.
        }
    }
}

package locker.client;

import java.util.List;
import java.util.Map;

/** What can go wrong, as types. No text contains credentials. */
public class LockerException extends RuntimeException {
    private static final long serialVersionUID = 1;

    LockerException(String text) {
        super(text);
    }

    /** No usable answer: whether the request took effect is unknown. Asking again is safe and may help. */
    public static class NoAnswer extends LockerException {
        private static final long serialVersionUID = 1;

        NoAnswer(String text) {
            super(text);
        }
    }

    /** No server has ever answered, and what is wrong does not pass by itself, such as an untrusted certificate. */
    public static final class Hopeless extends NoAnswer {
        private static final long serialVersionUID = 1;

        Hopeless(String text) {
            super(text);
        }
    }

    /** The time for waiting is over. Nothing is held. */
    public static final class TimedOut extends LockerException {
        private static final long serialVersionUID = 1;
        private final transient Waiting waiting;

        TimedOut(String text, Waiting waiting) {
            super(text);
            this.waiting = waiting;
        }

        /** The last news about the wait, or null. */
        public Waiting waiting() {
            return waiting;
        }
    }

    /** The locks are lost, or will be before they can be renewed. Stop what needs them. */
    public static final class Lost extends LockerException {
        private static final long serialVersionUID = 1;

        Lost(String text) {
            super(text);
        }
    }

    /** The server understood the request and refused it. */
    public static class Refused extends LockerException {
        private static final long serialVersionUID = 1;
        private final String code;
        private final int status;
        private final transient Map<String, Object> body;

        Refused(Map<String, Object> body, int status) {
            super(body.get("error") + " (" + body.get("code") + ")");
            this.code = String.valueOf(body.get("code"));
            this.status = status;
            this.body = body;
        }

        /** The stable word of the refusal. */
        public String code() {
            return code;
        }

        /** The HTTP status. */
        public int status() {
            return status;
        }

        /** All problems of a bad request. */
        public List<String> problems() {
            return Json.list(body.get("problems")).stream().map(String::valueOf).toList();
        }

        /** The ended claim, with code {@code ended}; empty otherwise. */
        public Map<String, Object> claim() {
            return Json.object(body.get("claim"));
        }

        /** The error for an answer that is a refusal: by its code, else by the status that the code belongs to. */
        static Refused of(Map<String, Object> body, int status) {
            if ("ended".equals(body.get("code"))) {
                return new Ended(body, status);
            }
            return switch (status) {
                case 400, 405, 413, 422 -> new BadRequest(body, status);
                case 401, 403 -> new Denied(body, status);
                case 404 -> new NotFound(body, status);
                case 409, 410, 421 -> new Conflict(body, status);
                default -> new Refused(body, status);
            };
        }
    }

    /** The request can never succeed as it is: a bad name, more locks than the pool has, a wrong ttl. */
    public static final class BadRequest extends Refused {
        private static final long serialVersionUID = 1;

        BadRequest(Map<String, Object> body, int status) {
            super(body, status);
        }
    }

    /** The server refuses these credentials, or wants some. */
    public static final class Denied extends Refused {
        private static final long serialVersionUID = 1;

        Denied(Map<String, Object> body, int status) {
            super(body, status);
        }
    }

    /** No such pool, lock or claim. */
    public static final class NotFound extends Refused {
        private static final long serialVersionUID = 1;

        NotFound(Map<String, Object> body, int status) {
            super(body, status);
        }
    }

    /** The request does not fit what the server knows: another claim has this id, another fence is current. */
    public static class Conflict extends Refused {
        private static final long serialVersionUID = 1;

        Conflict(Map<String, Object> body, int status) {
            super(body, status);
        }
    }

    /** The claim has ended. {@code claim().get("how")} says how. */
    public static final class Ended extends Conflict {
        private static final long serialVersionUID = 1;

        Ended(Map<String, Object> body, int status) {
            super(body, status);
        }
    }
}

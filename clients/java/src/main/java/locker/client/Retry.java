package locker.client;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.ThreadLocalRandom;
import locker.client.LockerException.Hopeless;
import locker.client.LockerException.NoAnswer;

/** Clocks, and pauses between attempts. All times are in seconds. */
final class Retry {
    private static final Path UPTIME = Path.of("/proc/uptime");
    private static final boolean HAS_UPTIME = Files.isReadable(UPTIME);

    private Retry() {}

    /** Pauses that double from 1 s and have full jitter, so that a thousand clients do not return at once. */
    static final class Backoff {
        private final double longest;
        private double next;

        Backoff(double longest) {
            this.longest = longest;
            this.next = Math.min(1, longest);
        }

        double next() {
            double pause = ThreadLocalRandom.current().nextDouble() * next;
            next = Math.min(next * 2, longest);
            return pause;
        }
    }

    static double monotonic() {
        return System.nanoTime() / 1e9;
    }

    /** A clock that also counts while the machine sleeps, where there is one. */
    static double clock() {
        if (!HAS_UPTIME) {
            return monotonic();
        }
        try {
            String text = Files.readString(UPTIME);
            return Double.parseDouble(text.substring(0, text.indexOf(' ')));
        } catch (IOException error) {
            throw new IllegalStateException("cannot read " + UPTIME, error);
        }
    }

    static void sleep(double seconds) throws InterruptedException {
        Thread.sleep((long) Math.ceil(seconds * 1000));
    }

    /** Something that sends a request. */
    interface Call<T> {
        T call() throws InterruptedException;
    }

    /** Repeats a call while there is no answer, for at most this many seconds. */
    static <T> T insist(double limit, Call<T> call) throws InterruptedException {
        double ends = monotonic() + limit;
        Backoff backoff = new Backoff(1);
        while (true) {
            try {
                return call.call();
            } catch (NoAnswer error) {
                double pause = backoff.next();
                if (error instanceof Hopeless || monotonic() + pause >= ends) {
                    throw error;
                }
                sleep(pause);
            }
        }
    }

    /** The same, for what must be tried although the thread was interrupted. The interruption is kept. */
    static <T> T insistAnyway(double limit, Call<T> call) {
        boolean interrupted = Thread.interrupted();
        double ends = monotonic() + limit;
        try {
            while (true) {
                try {
                    return insist(Math.max(0, ends - monotonic()), call);
                } catch (InterruptedException error) {
                    interrupted = true;
                }
            }
        } finally {
            if (interrupted) {
                Thread.currentThread().interrupt();
            }
        }
    }
}

package locker.client;

import java.io.IOException;
import java.net.ConnectException;
import java.net.ProtocolException;
import java.net.URI;
import java.net.URLDecoder;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpConnectTimeoutException;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.security.cert.CertPathBuilderException;
import java.security.cert.CertPathValidatorException;
import java.security.cert.CertificateException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import javax.net.ssl.SSLHandshakeException;
import locker.client.LockerException.Hopeless;
import locker.client.LockerException.NoAnswer;
import locker.client.LockerException.Refused;

/**
 * One request and what its answer means.
 *
 * <p>An answer with a {@code code} of the server is final. After a network error, 408, 429, 5xx or an answer of something
 * else (a proxy whose server is away), the outcome is unknown and the caller asks again. Redirects are never followed, so
 * credentials go to the named servers only.
 */
final class Transport {
    /** How long one request may take, in addition to the wait that it asks the server for, in seconds. */
    static final double PATIENCE = 15;

    /** How long connecting may take. */
    private static final Duration CONNECT = Duration.ofSeconds(5);
    /** Statuses below 500 that something between client and server answers while the server is away. */
    private static final Set<Integer> PASSING = Set.of(404, 408, 410, 425, 429);

    private final List<Server> servers;
    private final HttpClient http;
    private final AtomicInteger current = new AtomicInteger();
    private volatile boolean met;

    /** A server, without its credentials in any text. */
    private static final class Server {
        private final String name;
        private final String header;
        private volatile boolean hopeless;

        Server(String name, String header) {
            this.name = name;
            this.header = header;
        }
    }

    /** An answer of the server. */
    record Answer(int status, Map<String, Object> body) {}

    /** An answer that does not come from a locker server. */
    private static final class Foreign extends NoAnswer {
        private static final long serialVersionUID = 1;
        private final int status;

        Foreign(int status) {
            super((status >= 300 && status < 400 ? "a redirect" : "an answer")
                    + " (status " + status + ") that does not come from a locker server");
            this.status = status;
        }

        boolean lasts() {
            return status < 500 && !PASSING.contains(status) || status == 501;
        }
    }

    Transport(Access access) {
        servers = access.urls().stream().map(url -> server(url, access)).toList();
        if (servers.isEmpty()) {
            throw new LockerException("no server is named");
        }
        http = HttpClient.newBuilder()
                .version(HttpClient.Version.HTTP_1_1)
                .followRedirects(HttpClient.Redirect.NEVER)
                .proxy(HttpClient.Builder.NO_PROXY)
                .connectTimeout(CONNECT)
                .sslContext(Trust.context(access.caFile(), access.certFile(), access.keyFile()))
                .build();
    }

    /** The servers' addresses, without credentials. */
    @Override
    public String toString() {
        return servers.stream().map(server -> server.name).collect(Collectors.joining(", "));
    }

    private static Server server(URI url, Access access) {
        String path = url.getRawPath().replaceAll("/+$", "");
        int port = url.getPort() >= 0 ? url.getPort() : "https".equals(url.getScheme()) ? 443 : 80;
        String name = url.getScheme() + "://" + url.getHost() + ":" + port + path;
        return new Server(name, access.header(url));
    }

    /** One path segment or query value. */
    static String encode(String text) {
        return URLEncoder.encode(text, StandardCharsets.UTF_8).replace("+", "%20");
    }

    static String decode(String text) {
        return URLDecoder.decode(text.replace("+", "%2B"), StandardCharsets.UTF_8);
    }

    /** A {@code GET}. */
    Answer get(String path, Map<String, ?> query) throws InterruptedException {
        String text = query.entrySet().stream()
                .map(one -> one.getKey() + "=" + encode(String.valueOf(one.getValue())))
                .collect(Collectors.joining("&"));
        return send("GET", text.isEmpty() ? path : path + "?" + text, null, PATIENCE);
    }

    /**
     * Sends one request. Returns any 2xx, and a 423 that says who waits for what; throws in all other cases. A server that
     * cannot be connected to has not seen the request, so the next one is asked at once.
     */
    Answer send(String method, String path, Map<String, ?> body, double patience) throws InterruptedException {
        for (int left = servers.size() - 1; ; left--) {
            int index = current.get();
            Server server = servers.get(index);
            try {
                return exchange(server, method, path, body, patience);
            } catch (IOException | NoAnswer error) {
                server.hopeless = !met && lasts(error);
                current.compareAndSet(index, (index + 1) % servers.size());
                if (left == 0 || !(isUnconnected(error) || server.hopeless)) {
                    throw trouble(server, error);
                }
            }
        }
    }

    private Answer exchange(Server server, String method, String path, Map<String, ?> body, double patience)
            throws IOException, InterruptedException {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(server.name + path))
                .timeout(Duration.ofMillis(Math.max(1, (long) (patience * 1000))))
                .header("User-Agent", "locker-java");
        if (server.header != null) {
            request.header("Authorization", server.header);
        }
        if (body == null) {
            request.method(method, BodyPublishers.noBody());
        } else {
            request.header("Content-Type", "application/json");
            request.method(method, BodyPublishers.ofString(Json.write(body)));
        }
        return judge(http.send(request.build(), BodyHandlers.ofString()));
    }

    private Answer judge(HttpResponse<String> response) {
        int status = response.statusCode();
        Map<String, Object> body = parse(response.body());
        if (body == null || !(status < 300 || body.containsKey("code"))) {
            throw new Foreign(status);
        }
        met = true;
        if (status < 300 || status == 423 && body.containsKey("parked")) {
            return new Answer(status, body);
        }
        if (status == 408 || status == 429 || status >= 500) {
            throw new NoAnswer(body.get("error") + " (" + body.get("code") + ")");
        }
        throw Refused.of(body, status);
    }

    private static Map<String, Object> parse(String text) {
        try {
            return Json.read(text) instanceof Map<?, ?> map ? Json.object(map) : null;
        } catch (IllegalArgumentException error) {
            return null;
        }
    }

    private NoAnswer trouble(Server server, Exception error) {
        String text = "no answer from the locker server at " + server.name + ": " + inWords(error);
        return servers.stream().allMatch(one -> one.hopeless) ? new Hopeless(text) : new NoAnswer(text);
    }

    private static boolean isUnconnected(Exception error) {
        return error instanceof ConnectException
                || error instanceof HttpConnectTimeoutException
                || error instanceof SSLHandshakeException;
    }

    private static boolean isUntrusted(Throwable error) {
        for (Throwable one = error; one != null; one = one.getCause()) {
            if (one instanceof CertificateException
                    || one instanceof CertPathBuilderException
                    || one instanceof CertPathValidatorException) {
                return true;
            }
        }
        return false;
    }

    /** Whether asking again does not help: somebody has to change something first. */
    private static boolean lasts(Exception error) {
        return error instanceof Foreign foreign
                ? foreign.lasts()
                : isUntrusted(error) || error instanceof ProtocolException;
    }

    private static String inWords(Exception error) {
        if (isUntrusted(error)) {
            return "its certificate is not trusted (" + error.getMessage() + "): give caFile";
        }
        if (error instanceof ProtocolException) {
            return "it does not answer in HTTP: does it expect https://?";
        }
        if (error instanceof ConnectException) {
            return "it cannot be connected to";
        }
        return error.getMessage() != null ? error.getMessage() : error.getClass().getSimpleName();
    }
}

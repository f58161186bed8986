package locker.client;

import java.net.URI;
import java.net.URISyntaxException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** Which servers to ask, and as whom. Its text contains no credentials. */
public final class Access {
    private final List<URI> urls;
    private String username;
    private String password;
    private String token;
    private Path caFile;
    private Path certFile;
    private Path keyFile;
    private Map<String, String> owner;

    private Access(List<URI> urls) {
        this.urls = urls;
    }

    /** One URL, or several of one store, separated by commas. Without other credentials, those in the URLs are used. */
    public static Access to(String servers) {
        return new Access(Arrays.stream(servers.split(",")).map(Access::parse).toList());
    }

    /** The variables that the command line reads, and {@code LOCKER_TOKEN}. Certificates are files. */
    public static Access fromEnv() {
        Map<String, String> env = new TreeMap<>(System.getenv());
        env.values().removeIf(String::isEmpty);
        Access access = to(env.getOrDefault("LOCKER_URI", "http://127.0.0.1:8910"));
        access.username = env.get("LOCKER_USERNAME");
        access.password = env.get("LOCKER_PASSWORD");
        access.token = env.get("LOCKER_TOKEN");
        access.caFile = path(env.get("LOCKER_CA_CERT"));
        access.certFile = path(env.get("LOCKER_CLIENT_CERT"));
        access.keyFile = path(env.get("LOCKER_CLIENT_KEY"));
        return access;
    }

    /** User name and password, for HTTP Basic. */
    public Access password(String username, String password) {
        this.username = username;
        this.password = password;
        return this;
    }

    /** A bearer token, instead of user name and password. */
    public Access token(String token) {
        this.token = token;
        return this;
    }

    /** A PEM file: trust only these issuers. */
    public Access caFile(Path file) {
        this.caFile = file;
        return this;
    }

    /** PEM files: the certificate to show to the server, and its key in PKCS #8. */
    public Access certificate(Path certFile, Path keyFile) {
        this.certFile = certFile;
        this.keyFile = keyFile;
        return this;
    }

    /** Who asks, for others to see: members of the API's Owner, such as {@code person} and {@code program}. */
    public Access owner(Map<String, String> owner) {
        this.owner = Map.copyOf(owner);
        return this;
    }

    Map<String, String> owner() {
        return owner;
    }

    List<URI> urls() {
        return urls;
    }

    Path caFile() {
        return caFile;
    }

    Path certFile() {
        return certFile;
    }

    Path keyFile() {
        return keyFile != null ? keyFile : certFile;
    }

    /** Checks that the credentials fit together. */
    void check() {
        if (token != null && (username != null || password != null)) {
            throw new LockerException("give either a token, or a user name and a password");
        }
        if (token != null && !token.matches("[!-~]+")) {
            throw new LockerException(
                    "the token has characters that no token has: look for spaces and newlines around it");
        }
        long own = urls.stream().filter(url -> url.getRawUserInfo() != null).count();
        if (token == null && username == null && own > 0 && own < urls.size()) {
            throw new LockerException(
                    "only some of the servers have a user and password in their URL: write them into each");
        }
    }

    /** The header {@code Authorization} for this server, or null. */
    String header(URI url) {
        if (token != null) {
            return "Bearer " + token;
        }
        String pair = null;
        if (username != null) {
            pair = username + ":" + (password != null ? password : "");
        } else if (url.getRawUserInfo() != null) {
            String[] parts = url.getRawUserInfo().split(":", 2);
            pair = Transport.decode(parts[0]) + ":" + (parts.length > 1 ? Transport.decode(parts[1]) : "");
        }
        return pair == null
                ? null
                : "Basic " + Base64.getEncoder().encodeToString(pair.getBytes(StandardCharsets.UTF_8));
    }

    private static URI parse(String text) {
        URI url;
        try {
            url = new URI(text.strip());
        } catch (URISyntaxException error) {
            // Not that error: it contains the address, and the address may contain a password.
            throw new LockerException("the server's address is not a URL such as http://HOST:8910");
        }
        boolean known = "http".equals(url.getScheme()) || "https".equals(url.getScheme());
        if (!known || url.getHost() == null || url.getRawQuery() != null || url.getRawFragment() != null) {
            throw new LockerException(
                    "the server's address must be http:// or https://, a host and perhaps a port and a path");
        }
        return url;
    }

    private static Path path(String text) {
        return text == null ? null : Path.of(text);
    }
}

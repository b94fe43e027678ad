package dev.autonomygate;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFileAttributeView;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Flow;
import java.util.regex.Pattern;

/**
 * Look-ups and durable appends at the native host of this machine ({@code autonomy host serve}), over HTTP on a loopback
 * address. It has no state but connections that are kept open: any number of threads may share it.
 *
 * <p>A look-up is tried again once where the host did not answer, for its connection may have been dead. An append never is:
 * it may be in the log. Redirects are not followed and proxies not asked. Java's client speaks no Unix sockets, so the host
 * must listen on loopback.
 */
public final class NativeHost implements EnrollmentSource, DecisionSink {
    /** Longest answer that is read. */
    private static final int ANSWER_BYTES = 64 * 1024;
    /** A guard has limits of its own, which are shorter. */
    private static final Duration LONGEST = Duration.ofSeconds(30);

    private static final int OK = 200;
    private static final int CONFLICT = 409;

    private static final Pattern LOOPBACK = Pattern.compile("localhost|127(\\.\\d{1,3}){3}|\\[::1\\]");
    private static final Pattern TOKEN = Pattern.compile("[!-~]+");

    private static final Set<PosixFilePermission> OWNER = EnumSet.of(
            PosixFilePermission.OWNER_READ, PosixFilePermission.OWNER_WRITE, PosixFilePermission.OWNER_EXECUTE);

    private final HttpClient client = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1)
            .followRedirects(HttpClient.Redirect.NEVER)
            .proxy(HttpClient.Builder.NO_PROXY)
            .connectTimeout(LONGEST)
            .build();

    private final URI address;
    private final String authorization;

    private NativeHost(URI address, String token) {
        this.address = address;
        if (!TOKEN.matcher(token).matches()) {
            throw GateException.malformed(
                    "the token is empty or has other than printable characters: give it as the host has it");
        }
        authorization = "Bearer " + token;
    }

    /**
     * A host whose token is in a file.
     *
     * @param url where it listens, such as {@code http://127.0.0.1:7778}
     * @param tokenFile a file that holds the token and that nobody else can read
     * @return the host; nothing is sent yet
     * @throws GateException where the address is not loopback, or others can read the file
     * @throws IOException where the file cannot be read
     */
    public static NativeHost of(String url, Path tokenFile) throws IOException {
        URI address = addressOf(url);
        PosixFileAttributeView posix = Files.getFileAttributeView(tokenFile, PosixFileAttributeView.class);
        // Windows has no such bits.
        if (posix != null) {
            Set<PosixFilePermission> found = posix.readAttributes().permissions();
            if (!OWNER.containsAll(found)) {
                throw GateException.refused("others can read `" + tokenFile + "` (mode `"
                        + PosixFilePermissions.toString(found) + "`): run `chmod 600` on it");
            }
        }
        return new NativeHost(address, Files.readString(tokenFile).strip());
    }

    /**
     * A host whose token is known.
     *
     * @param url where it listens, such as {@code http://127.0.0.1:7778}
     * @param token the token
     * @return the host; nothing is sent yet
     * @throws GateException where the address is not loopback, or the token is none
     */
    public static NativeHost withToken(String url, String token) {
        return new NativeHost(addressOf(url), token);
    }

    /** What the host answered, as it came. */
    @Override
    public Answer lookUp(String nodeId) throws IOException, InterruptedException {
        // A node id is a name that needs no escape; what is none must not become another path.
        HttpRequest request = request("/v1/enrollments/" + segment(nodeId)).GET().build();
        Said said;
        try {
            said = send(request);
        } catch (IOException e) {
            said = send(request);
        }
        if (said.status != OK) {
            throw said.refusal();
        }
        return Answer.json(said.body);
    }

    /** Returns when the host says that the frames are durable. */
    @Override
    public void append(Frames frames) throws IOException, InterruptedException, FactsNotLoggedException {
        HttpRequest request = request("/v1/frames")
                .header("content-type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString("{\"frames\":" + frames.json() + "}"))
                .build();
        Said said = send(request);
        if (said.status == CONFLICT) {
            throw new FactsNotLoggedException(said.refusal().getMessage());
        }
        if (said.status != OK) {
            throw said.refusal();
        }
        requireReceipt(said.body);
    }

    /**
     * Whether the host takes frames.
     *
     * @return false where it does not, and where it does not answer
     */
    public boolean isHealthy() {
        try {
            return send(request("/v1/health").GET().build()).status == OK;
        } catch (IOException e) {
            return false;
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            return false;
        }
    }

    private HttpRequest.Builder request(String path) {
        return HttpRequest.newBuilder(address.resolve(path)).timeout(LONGEST).header("authorization", authorization);
    }

    private Said send(HttpRequest request) throws IOException, InterruptedException {
        HttpResponse<String> response = client.send(request, head -> new Bounded());
        return new Said(response.statusCode(), response.body());
    }

    /** Something else may answer on that port, and 200 to everything. */
    private static void requireReceipt(String body) throws IOException {
        Long first = null;
        Long last = null;
        try {
            JsonReader in = new JsonReader(body);
            in.object();
            while (in.more()) {
                switch (in.name()) {
                    case "first_seq":
                        first = in.unsigned();
                        break;
                    case "last_seq":
                        last = in.unsigned();
                        break;
                    default:
                        in.skip();
                }
            }
            in.end();
        } catch (JsonReader.Malformed e) {
            throw new IOException("the native host gave no receipt: " + e.getMessage(), e);
        }
        if (first == null || last == null || Long.compareUnsigned(first, last) > 0) {
            throw new IOException("the native host gave no receipt");
        }
    }

    private static URI addressOf(String url) {
        URI address;
        try {
            address = URI.create(url);
        } catch (IllegalArgumentException e) {
            throw new GateException(
                    GateException.Kind.MALFORMED, "`" + url + "` is no address: give one like `http://127.0.0.1:7778`", e);
        }
        boolean alone = address.getRawUserInfo() == null
                && address.getRawQuery() == null
                && address.getRawFragment() == null
                && ("".equals(address.getRawPath()) || "/".equals(address.getRawPath()));
        if (!"http".equals(address.getScheme()) || address.getHost() == null || !alone) {
            throw GateException.malformed("`" + url + "` is no address: give one like `http://127.0.0.1:7778`");
        }
        if (!LOOPBACK.matcher(address.getHost()).matches()) {
            throw GateException.unsupported("`" + url + "` is not loopback: the token would be read on the way, use the"
                    + " native host of this machine");
        }
        return address;
    }

    private static String segment(String nodeId) {
        return URLEncoder.encode(nodeId, StandardCharsets.UTF_8).replace("+", "%20");
    }

    /** What the host answered. */
    private static final class Said {
        final int status;
        final String body;

        Said(int status, String body) {
            this.status = status;
            this.body = body;
        }

        IOException refusal() {
            return new IOException("the native host answered `" + status + "`" + error());
        }

        private String error() {
            try {
                JsonReader in = new JsonReader(body);
                in.object();
                return in.more() && in.name().equals("error") ? ": " + in.string() : "";
            } catch (JsonReader.Malformed e) {
                return "";
            }
        }
    }

    /** A body as text, which is given up when it gets too long. */
    private static final class Bounded implements HttpResponse.BodySubscriber<String> {
        private final CompletableFuture<String> body = new CompletableFuture<>();
        private final ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        private Flow.Subscription subscription;

        @Override
        public CompletionStage<String> getBody() {
            return body;
        }

        @Override
        public void onSubscribe(Flow.Subscription subscription) {
            this.subscription = subscription;
            subscription.request(Long.MAX_VALUE);
        }

        @Override
        public void onNext(List<ByteBuffer> buffers) {
            for (ByteBuffer buffer : buffers) {
                if (bytes.size() + buffer.remaining() > ANSWER_BYTES) {
                    subscription.cancel();
                    body.completeExceptionally(new IOException("the answer is longer than " + ANSWER_BYTES + " bytes"));
                    return;
                }
                byte[] part = new byte[buffer.remaining()];
                buffer.get(part);
                bytes.write(part, 0, part.length);
            }
        }

        @Override
        public void onError(Throwable error) {
            body.completeExceptionally(error);
        }

        @Override
        public void onComplete() {
            body.complete(bytes.toString(StandardCharsets.UTF_8));
        }
    }
}

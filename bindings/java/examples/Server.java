import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import dev.autonomygate.*;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.Executors;

/**
 * A server whose one endpoint, `POST /arm`, moves an arm: each move is asked of the gate, and written down by the native host.
 *
 * <p>Run it beside `autonomy host serve`, in a directory with `bundle.tar`, the release key and the host's token:
 * `java -cp … Server.java http://127.0.0.1:7778`.
 */
class Server {
    public static void main(String[] args) throws IOException {
        Gate gate = Gate.builder()
                .bundle(Files.readAllBytes(Path.of("bundle.tar")))
                .trustedKeys(Files.readString(Path.of("release.pub.pem")))
                .nodeId(System.getenv("AUTONOMY_NODE_ID"))
                .mode(Mode.ENFORCE)
                .load();
        Guard guard = Guard.of(gate, NativeHost.of(args[0], Path.of("host.token")));

        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/arm", exchange -> {
            try (Permit permit = guard.ask("arm.move")) {
                answer(exchange, 200, "{\"moved\":true,\"audit_id\":\"" + permit.auditId() + "\"}");
                permit.finish(Outcome.COMPLETED);
            } catch (DeniedException denied) {
                answer(exchange, denied.status(), denied.json());
            }
        });
        server.start();
        System.out.println("http://127.0.0.1:" + server.getAddress().getPort() + "/arm");
    }

    private static void answer(HttpExchange exchange, int status, String json) throws IOException {
        byte[] body = json.getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("content-type", "application/json");
        exchange.sendResponseHeaders(status, body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }
}

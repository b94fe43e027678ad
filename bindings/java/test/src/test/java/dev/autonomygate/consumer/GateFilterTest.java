package dev.autonomygate.consumer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.autonomygate.Enrollment;
import dev.autonomygate.Frame;
import dev.autonomygate.Guard;
import dev.autonomygate.MemoryHost;
import dev.autonomygate.ToolCall;
import dev.autonomygate.servlet.GateFilter;
import jakarta.servlet.AsyncContext;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.eclipse.jetty.ee10.servlet.FilterHolder;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;
import org.junit.jupiter.api.Test;

/** The filter before servlets of Jetty. */
class GateFilterTest {
    private static final AtomicInteger RAN = new AtomicInteger();

    /** A servlet that is to be gated. */
    private static final class Tool extends HttpServlet {
        private static final long serialVersionUID = 1L;

        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
            RAN.incrementAndGet();
            String auditId = (String) request.getAttribute(GateFilter.AUDIT_ID);
            if (request.getServletPath().equals("/async")) {
                AsyncContext async = request.startAsync();
                async.start(() -> {
                    response.setStatus(202);
                    async.complete();
                });
                return;
            }
            response.setStatus(request.getServletPath().equals("/fails") ? 500 : 200);
            response.getWriter().print(auditId);
        }
    }

    private String url;

    private HttpResponse<String> get(String path) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url + path)).build();
        return HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
    }

    @Test
    void aServletRunsWithAPermit() throws Exception {
        MemoryHost host = new MemoryHost();
        host.enroll(Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef()));
        Guard guard = Guard.of(Support.good().load(), host);
        GateFilter filter = new GateFilter(
                guard, request -> ToolCall.of(request.getServletPath().equals("/malformed") ? "no tool" : "tool.echo"));
        Server server = new Server(new InetSocketAddress("127.0.0.1", 0));
        ServletContextHandler context = new ServletContextHandler();
        FilterHolder holder = new FilterHolder(filter);
        holder.setAsyncSupported(true);
        context.addFilter(holder, "/*", null);
        for (String path : List.of("/runs", "/fails", "/async", "/malformed")) {
            context.addServlet(new ServletHolder(new Tool()), path);
        }
        server.setHandler(context);
        server.start();
        url = server.getURI().resolve("/").toString().replaceAll("/$", "");
        try {
            HttpResponse<String> ran = get("/runs");
            assertEquals(200, ran.statusCode());
            assertEquals(500, get("/fails").statusCode());
            assertEquals(202, get("/async").statusCode());
            List<String> actions = actions(host, 3);
            assertTrue(actions.contains(ran.body() + " completed"), actions::toString);
            assertEquals(1, actions.stream().filter(action -> action.endsWith(" failed")).count());

            assertEquals(400, get("/malformed").statusCode());
            host.revoke(Support.NODE);
            HttpResponse<String> denied = get("/runs");
            assertEquals(403, denied.statusCode());
            assertEquals("attestation: enrollment_revoked", Support.read(denied.body()).get("reason").asText());
            host.fail(new IOException("down"));
            assertEquals(503, get("/runs").statusCode());
            assertEquals(3, RAN.get());
        } finally {
            server.stop();
        }
    }

    private static List<String> actions(MemoryHost host, int wanted) throws InterruptedException {
        List<String> actions = List.of();
        for (int tries = 0; tries < 200 && actions.size() < wanted; tries += 1) {
            Thread.sleep(10);
            actions = host.frames().stream()
                    .filter(frame -> frame.kind().equals("autonomy.action"))
                    .map(GateFilterTest::said)
                    .collect(Collectors.toList());
        }
        assertEquals(wanted, actions.size());
        return actions;
    }

    private static String said(Frame frame) {
        return frame.auditId() + " " + Support.read(frame.attrs()).get("outcome").asText();
    }
}

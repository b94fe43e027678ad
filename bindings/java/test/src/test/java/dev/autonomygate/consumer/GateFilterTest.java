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
import jakarta.servlet.AsyncEvent;
import jakarta.servlet.AsyncListener;
import jakarta.servlet.DispatcherType;
import jakarta.servlet.FilterRegistration;
import jakarta.servlet.ServletContainerInitializer;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.net.http.HttpResponse;
import java.nio.file.Path;
import java.util.EnumSet;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The filter before servlets of Tomcat. */
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

    @TempDir
    Path base;

    @Test
    void aServletRunsWithAPermit() throws Exception {
        MemoryHost host = new MemoryHost();
        host.enroll(Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef));
        Guard guard = Support.patient(Support.good().load(), host).build();
        GateFilter filter = new GateFilter(
                guard, request -> ToolCall.of(request.getServletPath().equals("/malformed") ? "no tool" : "tool.echo"));
        ServletContainerInitializer gate = (classes, context) -> {
            FilterRegistration.Dynamic registered = context.addFilter("gate", filter);
            registered.setAsyncSupported(true);
            registered.addMappingForUrlPatterns(EnumSet.of(DispatcherType.REQUEST), false, "/*");
        };
        try (Container container = new Container(base, gate, new Tool(), "/runs", "/fails", "/async", "/malformed")) {
            HttpResponse<String> ran = container.get("/runs");
            assertEquals(200, ran.statusCode());
            assertEquals(500, container.get("/fails").statusCode());
            assertEquals(202, container.get("/async").statusCode());
            List<String> actions = actions(host, 3);
            assertTrue(actions.contains(ran.body() + " completed"), actions::toString);
            assertEquals(1, actions.stream().filter(action -> action.endsWith(" failed")).count());

            assertEquals(400, container.get("/malformed").statusCode());
            host.revoke(Support.NODE);
            HttpResponse<String> denied = container.get("/runs");
            assertEquals(403, denied.statusCode());
            assertEquals("attestation: enrollment_revoked", Support.read(denied.body()).get("reason").asText());
            host.fail(new IOException("down"));
            assertEquals(503, container.get("/runs").statusCode());
            assertEquals(3, RAN.get());
        }
    }

    /** A servlet that dispatches requests on. */
    private static final class Dispatching extends HttpServlet {
        private static final long serialVersionUID = 1L;
        private final transient MemoryHost host;

        Dispatching(MemoryHost host) {
            this.host = host;
        }

        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) throws ServletException, IOException {
            if (request.getDispatcherType() != DispatcherType.REQUEST) {
                response.getWriter().print(request.getAttribute(GateFilter.AUDIT_ID));
                return;
            }
            AsyncContext async = request.startAsync();
            switch (request.getServletPath()) {
                case "/to-itself":
                    // It is not asked again: it would be denied.
                    host.revoke(Support.NODE);
                    async.dispatch();
                    return;
                case "/with-other-parameters":
                    async.dispatch("/with-other-parameters?joint=2");
                    return;
                case "/to-another":
                    async.dispatch("/runs");
                    return;
                case "/late":
                    async.setTimeout(1);
                    async.addListener(new Again());
                    return;
                default:
                    request.getRequestDispatcher("/runs").forward(request, response);
                    async.dispatch("/runs");
            }
        }
    }

    /** Dispatches a request again whose time is up. */
    private static final class Again implements AsyncListener {
        @Override
        public void onTimeout(AsyncEvent event) {
            event.getAsyncContext().dispatch();
        }

        @Override
        public void onComplete(AsyncEvent event) {}

        @Override
        public void onError(AsyncEvent event) {}

        @Override
        public void onStartAsync(AsyncEvent event) {}
    }

    @Test
    void anAsynchronousServletIsAskedOnce() throws Exception {
        assertEquals(List.of("completed"), outcomes("/to-itself"));
    }

    @Test
    void whatElseIsDispatchedIsAskedAnew() throws Exception {
        assertEquals(List.of("completed", "completed"), outcomes("/to-another"));
        assertEquals(List.of("completed", "completed"), outcomes("/with-other-parameters"));
        assertEquals(List.of("abandoned", "completed"), outcomes("/late"));
        assertEquals(List.of("completed", "completed"), outcomes("/not-gated-twice"));
    }

    /** How the calls of a request went; each was decided. */
    private List<String> outcomes(String path) throws Exception {
        MemoryHost host = new MemoryHost();
        host.enroll(Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef));
        Guard guard = Support.patient(Support.good().load(), host).build();
        ServletContainerInitializer gate = (classes, context) -> {
            FilterRegistration.Dynamic registered =
                    context.addFilter("gate", new GateFilter(guard, request -> ToolCall.of("tool.echo")));
            registered.setAsyncSupported(true);
            registered.addMappingForUrlPatterns(EnumSet.allOf(DispatcherType.class), false,
                    "/runs", "/to-itself", "/to-another", "/with-other-parameters", "/late");
        };
        try (Container container = new Container(base, gate, new Dispatching(host), "/runs", path)) {
            HttpResponse<String> ran = container.get(path);
            assertEquals(200, ran.statusCode(), ran.body());
            long decided = host.frames().stream().filter(frame -> frame.kind().equals("autonomy.decision")).count();
            return actions(host, (int) decided).stream()
                    .map(action -> action.substring(action.indexOf(' ') + 1))
                    .sorted()
                    .collect(Collectors.toList());
        }
    }

    private static List<String> actions(MemoryHost host, int wanted) throws InterruptedException {
        List<String> actions = List.of();
        long deadlineNs = System.nanoTime() + TimeUnit.MINUTES.toNanos(1);
        while (actions.size() < wanted && System.nanoTime() < deadlineNs) {
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

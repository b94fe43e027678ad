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
import jakarta.servlet.DispatcherType;
import jakarta.servlet.FilterRegistration;
import jakarta.servlet.ServletContainerInitializer;
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

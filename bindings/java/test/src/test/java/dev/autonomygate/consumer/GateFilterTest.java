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
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.apache.catalina.Context;
import org.apache.catalina.Wrapper;
import org.apache.catalina.startup.Tomcat;
import org.apache.tomcat.util.descriptor.web.FilterDef;
import org.apache.tomcat.util.descriptor.web.FilterMap;
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

    private String url;

    private HttpResponse<String> get(String path) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url + path)).build();
        return HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
    }

    @Test
    void aServletRunsWithAPermit() throws Exception {
        MemoryHost host = new MemoryHost();
        host.enroll(Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef));
        Guard guard = Support.patient(Support.good().load(), host).build();
        GateFilter filter = new GateFilter(
                guard, request -> ToolCall.of(request.getServletPath().equals("/malformed") ? "no tool" : "tool.echo"));
        Tomcat tomcat = new Tomcat();
        tomcat.setSilent(true);
        tomcat.setBaseDir(base.toString());
        tomcat.setPort(0);
        tomcat.getConnector().setProperty("address", "127.0.0.1");
        Context context = tomcat.addContext("", null);
        FilterDef definition = new FilterDef();
        definition.setFilterName("gate");
        definition.setFilter(filter);
        definition.setAsyncSupported("true");
        context.addFilterDef(definition);
        FilterMap everything = new FilterMap();
        everything.setFilterName("gate");
        everything.addURLPattern("/*");
        context.addFilterMap(everything);
        Wrapper tool = Tomcat.addServlet(context, "tool", new Tool());
        tool.setAsyncSupported(true);
        for (String path : List.of("/runs", "/fails", "/async", "/malformed")) {
            tool.addMapping(path);
        }
        tomcat.start();
        url = "http://127.0.0.1:" + tomcat.getConnector().getLocalPort();
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
            tomcat.stop();
            tomcat.destroy();
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

package dev.autonomygate.consumer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.autonomygate.DeniedException;
import dev.autonomygate.Enrollment;
import dev.autonomygate.Frame;
import dev.autonomygate.Guard;
import dev.autonomygate.MemoryHost;
import dev.autonomygate.PolicyAnswer;
import dev.autonomygate.Reason;
import dev.autonomygate.ToolCall;
import dev.autonomygate.servlet.GateFilter;
import jakarta.servlet.AsyncContext;
import jakarta.servlet.AsyncEvent;
import jakarta.servlet.AsyncListener;
import jakarta.servlet.DispatcherType;
import jakarta.servlet.FilterChain;
import jakarta.servlet.FilterRegistration;
import jakarta.servlet.ServletContainerInitializer;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpFilter;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletRequestWrapper;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.net.http.HttpResponse;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
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

    private MemoryHost host;
    private volatile Throwable thrown;

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
            int before = RAN.get();
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
            assertEquals(3, RAN.get() - before);
        }
    }

    /** A servlet that dispatches requests on. */
    private final class Dispatching extends HttpServlet {
        private static final long serialVersionUID = 1L;

        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) throws ServletException, IOException {
            switch (request.getDispatcherType()) {
                case REQUEST:
                    dispatch(request, response);
                    return;
                case INCLUDE:
                    request.getRequestDispatcher("/denied").forward(request, response);
                    return;
                default:
                    RAN.incrementAndGet();
                    response.getWriter().print(request.getAttribute(GateFilter.AUDIT_ID));
            }
        }

        private void dispatch(HttpServletRequest request, HttpServletResponse response) throws ServletException, IOException {
            switch (request.getServletPath()) {
                case "/to-itself":
                    request.startAsync().dispatch();
                    host.revoke(Support.NODE);
                    return;
                case "/to-another":
                    request.startAsync().dispatch("/runs");
                    return;
                case "/to-a-denied-one":
                    request.startAsync(request, response).dispatch("/denied");
                    return;
                case "/late":
                    AsyncContext late = request.startAsync();
                    late.setTimeout(1);
                    late.addListener(new Listening());
                    return;
                case "/writes-and-forwards":
                    response.getWriter().print("begun");
                    request.getRequestDispatcher("/denied").forward(request, response);
                    return;
                case "/writes-and-dispatches":
                    response.getOutputStream().print("begun");
                    request.startAsync().dispatch("/denied");
                    return;
                case "/sends-and-dispatches":
                    response.getWriter().print("begun");
                    response.setStatus(403);
                    response.flushBuffer();
                    AsyncContext sent = request.startAsync();
                    sent.addListener(new Listening());
                    sent.dispatch("/denied");
                    return;
                case "/includes-what-forwards":
                    try {
                        request.getRequestDispatcher("/forwards").include(request, response);
                    } catch (ServletException e) {
                        DeniedException denied = (DeniedException) e.getCause();
                        response.getWriter().print(denied.status() + ", " + denied.reason());
                    }
                    return;
                default:
                    AsyncContext async = request.startAsync();
                    request.getRequestDispatcher("/runs").forward(request, response);
                    async.dispatch("/runs");
            }
        }
    }

    /** A filter before the gate's, which hides where a request is dispatched to. */
    private static final class Before extends HttpFilter {
        private static final long serialVersionUID = 1L;

        @Override
        protected void doFilter(HttpServletRequest request, HttpServletResponse response, FilterChain chain)
                throws IOException, ServletException {
            response.setHeader("Before", "was here");
            chain.doFilter(new HttpServletRequestWrapper(request) {
                @Override
                public String getRequestURI() {
                    return "/";
                }
            }, response);
        }
    }

    /** Dispatches a request again whose time is up, and keeps what is thrown. */
    private final class Listening implements AsyncListener {
        @Override
        public void onTimeout(AsyncEvent event) {
            event.getAsyncContext().dispatch();
        }

        @Override
        public void onComplete(AsyncEvent event) {}

        @Override
        public void onError(AsyncEvent event) {
            thrown = event.getThrowable();
        }

        @Override
        public void onStartAsync(AsyncEvent event) {}
    }

    @Test
    void anAsynchronousServletThatDispatchesToItselfIsAskedAgain() throws Exception {
        assertDenied(get("/to-itself"), "attestation: enrollment_revoked");
        assertEquals(List.of("allow", "deny", "failed"), outcomes());
    }

    @Test
    void whatIsDispatchedIsAsked() throws Exception {
        for (String path : List.of("/to-another", "/not-gated-twice")) {
            assertEquals(200, get(path).statusCode());
            assertEquals(List.of("allow", "allow", "completed", "completed"), outcomes());
        }
        assertEquals(200, get("/late").statusCode());
        assertEquals(List.of("abandoned", "allow", "allow", "completed"), outcomes());
        assertDenied(get("/to-a-denied-one"), "policy: denied");
        assertEquals(List.of("allow", "deny", "failed"), outcomes());
    }

    @Test
    void aDenialIsTheWholeAnswer() throws Exception {
        for (String path : List.of("/writes-and-forwards", "/writes-and-dispatches")) {
            HttpResponse<String> denied = get(path);
            assertDenied(denied, "policy: denied");
            assertEquals("was here", denied.headers().firstValue("Before").orElseThrow());
            assertEquals(List.of("allow", "deny", "failed"), outcomes());
        }
    }

    @Test
    void aDenialIsThrownWhereItCannotBeTheAnswer() throws Exception {
        int ran = RAN.get();
        assertEquals("403, policy: denied", get("/includes-what-forwards").body());
        // It ends too early.
        assertThrows(IOException.class, () -> get("/sends-and-dispatches"));
        assertEquals(Reason.DENIED, assertInstanceOf(DeniedException.class, thrown.getCause()).reason());
        assertEquals(List.of("allow", "deny", "failed"), outcomes());
        assertEquals(ran, RAN.get());
    }

    private static void assertDenied(HttpResponse<String> answer, String reason) {
        assertEquals(403, answer.statusCode(), answer.body());
        assertEquals(reason, Support.read(answer.body()).get("reason").asText());
    }

    /** What a request gets where all but {@code /denied} is allowed. */
    private HttpResponse<String> get(String path) throws Exception {
        host = new MemoryHost();
        host.enroll(Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef));
        Guard guard = Support.patient(Support.good().load(), host)
                .policy(call -> PolicyAnswer.of(call.tool().equals("tool.denied") ? Reason.DENIED : Reason.ALLOWED))
                .build();
        GateFilter filter = new GateFilter(
                guard, request -> ToolCall.of(request.getServletPath().equals("/denied") ? "tool.denied" : "tool.echo"));
        ServletContainerInitializer gate = (classes, context) -> {
            FilterRegistration.Dynamic before = context.addFilter("before", new Before());
            before.setAsyncSupported(true);
            before.addMappingForUrlPatterns(EnumSet.of(DispatcherType.REQUEST), false,
                    "/to-a-denied-one", "/writes-and-forwards", "/writes-and-dispatches");
            FilterRegistration.Dynamic registered = context.addFilter("gate", filter);
            registered.setAsyncSupported(true);
            registered.addMappingForUrlPatterns(EnumSet.allOf(DispatcherType.class), false, "/runs", "/denied", "/late",
                    "/to-itself", "/to-another", "/to-a-denied-one",
                    "/writes-and-forwards", "/writes-and-dispatches", "/sends-and-dispatches");
        };
        try (Container container = new Container(base, gate, new Dispatching(), "/runs", "/denied", "/forwards", path)) {
            return container.get(path);
        }
    }

    /** How the calls of the last request were decided and went, sorted. */
    private List<String> outcomes() throws InterruptedException {
        // An attestation that denies has a frame behind that of the policies.
        Map<String, String> decisions = host.frames().stream()
                .filter(frame -> frame.kind().equals("autonomy.decision"))
                .collect(Collectors.toMap(Frame::auditId, GateFilterTest::outcome, (policies, attestation) -> attestation));
        List<String> outcomes = new ArrayList<>(decisions.values());
        int allowed = Collections.frequency(outcomes, "allow");
        actions(host, allowed).forEach(action -> outcomes.add(action.substring(action.indexOf(' ') + 1)));
        Collections.sort(outcomes);
        return outcomes;
    }

    /** How the calls went, by their audit ids. */
    static List<String> actions(MemoryHost host, int wanted) throws InterruptedException {
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
        return frame.auditId() + " " + outcome(frame);
    }

    private static String outcome(Frame frame) {
        return Support.read(frame.attrs()).get("outcome").asText();
    }
}

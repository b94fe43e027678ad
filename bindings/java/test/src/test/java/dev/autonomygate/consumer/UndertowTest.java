package dev.autonomygate.consumer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.autonomygate.Gate;
import dev.autonomygate.Guard;
import dev.autonomygate.MemoryHost;
import dev.autonomygate.PolicyAnswer;
import dev.autonomygate.Reason;
import dev.autonomygate.ToolCall;
import dev.autonomygate.servlet.GateFilter;
import io.undertow.Undertow;
import io.undertow.servlet.Servlets;
import io.undertow.servlet.api.DeploymentInfo;
import io.undertow.servlet.api.DeploymentManager;
import io.undertow.servlet.util.ImmediateInstanceFactory;
import jakarta.servlet.AsyncContext;
import jakarta.servlet.DispatcherType;
import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpFilter;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletRequestWrapper;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import org.junit.jupiter.api.Test;

/** The filter before a servlet of Undertow, where an asynchronous one is dispatched or over before the filter returns. */
class UndertowTest {
    private final MemoryHost host = new MemoryHost();

    /** Dispatches to what is denied, or becomes asynchronous. */
    private static final class Tool extends HttpServlet {
        private static final long serialVersionUID = 1L;

        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
            switch (request.getServletPath()) {
                case "/dispatches":
                    request.startAsync().dispatch("/denied");
                    return;
                case "/ends":
                    request.startAsync();
                    return;
                default:
                    response.getWriter().print("ran");
            }
        }
    }

    /** Ends what is asynchronous on another thread, as soon as it has been seen. */
    private static final class Ending extends HttpFilter {
        private static final long serialVersionUID = 1L;

        @Override
        protected void doFilter(HttpServletRequest request, HttpServletResponse response, FilterChain chain)
                throws IOException, ServletException {
            chain.doFilter(new HttpServletRequestWrapper(request) {
                @Override
                public boolean isAsyncStarted() {
                    boolean started = super.isAsyncStarted();
                    if (started) {
                        end(getAsyncContext());
                    }
                    return started;
                }
            }, response);
        }

        private static void end(AsyncContext async) {
            Thread ends = new Thread(async::complete);
            ends.start();
            try {
                ends.join();
            } catch (InterruptedException e) {
                throw new AssertionError(e);
            }
        }
    }

    @Test
    void whatAnAsynchronousServletDispatchesToIsAsked() throws Exception {
        HttpResponse<String> denied = get("/dispatches");
        assertEquals(403, denied.statusCode(), denied.body());
        assertEquals("policy: denied", Support.read(denied.body()).get("reason").asText());
    }

    @Test
    void aServletThatEndsOnAnotherThreadHasItsPermitFinished() throws Exception {
        assertEquals(200, get("/ends").statusCode());
        String action = GateFilterTest.actions(host, 1).get(0);
        assertTrue(action.endsWith(" completed"), action);
    }

    private HttpResponse<String> get(String path) throws Exception {
        Guard guard = Support.patient(Gate.builder().nodeId(Support.NODE).load(), host)
                .policy(call -> PolicyAnswer.of(call.tool().equals("tool.denied") ? Reason.DENIED : Reason.ALLOWED))
                .build();
        GateFilter gate = new GateFilter(guard, request -> ToolCall.of("tool" + request.getServletPath().replace('/', '.')));
        DeploymentInfo deployment = Servlets.deployment()
                .setClassLoader(getClass().getClassLoader())
                .setContextPath("/")
                .setDeploymentName("test")
                .addServlet(Servlets.servlet("tool", Tool.class, new ImmediateInstanceFactory<>(new Tool()))
                        .addMappings("/dispatches", "/denied", "/ends")
                        .setAsyncSupported(true))
                .addFilter(Servlets.filter("ending", Ending.class, new ImmediateInstanceFactory<>(new Ending()))
                        .setAsyncSupported(true))
                .addFilter(Servlets.filter("gate", GateFilter.class, new ImmediateInstanceFactory<>(gate))
                        .setAsyncSupported(true))
                .addFilterUrlMapping("ending", "/ends", DispatcherType.REQUEST);
        for (DispatcherType type : DispatcherType.values()) {
            deployment.addFilterUrlMapping("gate", "/*", type);
        }
        DeploymentManager manager = Servlets.defaultContainer().addDeployment(deployment);
        manager.deploy();
        Undertow undertow = Undertow.builder().addHttpListener(0, "127.0.0.1").setHandler(manager.start()).build();
        undertow.start();
        try {
            int port = ((InetSocketAddress) undertow.getListenerInfo().get(0).getAddress()).getPort();
            HttpRequest request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + path)).build();
            return HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        } finally {
            undertow.stop();
        }
    }
}

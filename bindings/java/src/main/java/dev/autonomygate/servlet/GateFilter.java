package dev.autonomygate.servlet;

import dev.autonomygate.DeniedException;
import dev.autonomygate.GateException;
import dev.autonomygate.Guard;
import dev.autonomygate.Outcome;
import dev.autonomygate.Permit;
import dev.autonomygate.ToolCall;
import jakarta.servlet.AsyncEvent;
import jakarta.servlet.AsyncListener;
import jakarta.servlet.DispatcherType;
import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpFilter;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Objects;
import java.util.UUID;
import java.util.function.Function;

/**
 * Asks before a servlet. What comes after it in the chain runs only with a permit, whose audit id is the request's attribute
 * {@link #AUDIT_ID}; a denied request is answered here. The answer's status says how the tool went: completed below 400,
 * failed from there and where the servlet throws, abandoned when an asynchronous one is given up.
 *
 * <p>Each dispatch for which it is mapped is asked, but for that of an asynchronous servlet to itself, which goes on with its
 * permit. Where a servlet is included, a denial is thrown, as the cause of a {@link ServletException}: the answer is that of
 * the servlet which includes it.
 */
public final class GateFilter extends HttpFilter {
    private static final long serialVersionUID = 1L;

    /** The attribute of a request that was allowed: the audit id. */
    public static final String AUDIT_ID = "dev.autonomygate.auditId";

    private static final int FAILED = 400;

    /** Who is asked. */
    private final transient Guard guard;
    /** What a request asks for. */
    private final transient Function<HttpServletRequest, ToolCall> call;
    /** The attribute of a request whose servlet has become asynchronous, for this filter alone: an {@link Asynchronous}. */
    private final String asynchronous = AUDIT_ID + "." + UUID.randomUUID();

    /**
     * A filter for requests that all ask a guard.
     *
     * @param guard who is asked
     * @param call what a request asks for
     */
    public GateFilter(Guard guard, Function<HttpServletRequest, ToolCall> call) {
        this.guard = Objects.requireNonNull(guard, "guard");
        this.call = Objects.requireNonNull(call, "call");
    }

    @Override
    protected void doFilter(HttpServletRequest request, HttpServletResponse response, FilterChain chain)
            throws IOException, ServletException {
        if (goesOn(request)) {
            chain.doFilter(request, response);
            return;
        }
        Permit permit;
        try {
            permit = guard.ask(call.apply(request));
        } catch (DeniedException denied) {
            refuse(request, response, denied, denied.status(), denied.json());
            return;
        } catch (GateException e) {
            // What it was is for the operator, not for the caller.
            boolean malformed = e.kind() == GateException.Kind.MALFORMED;
            refuse(
                    request,
                    response,
                    e,
                    malformed ? HttpServletResponse.SC_BAD_REQUEST : HttpServletResponse.SC_INTERNAL_SERVER_ERROR,
                    malformed ? "{\"error\":\"the call is malformed\"}" : "{\"error\":\"the call could not be decided\"}");
            return;
        }
        request.setAttribute(AUDIT_ID, permit.auditId());
        // Then this servlet cannot make it so: it is over when it returns.
        boolean wasAsynchronous = request.isAsyncStarted();
        Outcome outcome = Outcome.FAILED;
        try {
            chain.doFilter(request, response);
            outcome = outcomeOf(response);
        } finally {
            if (!wasAsynchronous && request.isAsyncStarted()) {
                Asynchronous runs = new Asynchronous(permit, place(request), response);
                request.setAttribute(asynchronous, runs);
                request.getAsyncContext().addListener(runs);
            } else {
                permit.finish(outcome);
            }
        }
    }

    /** Whether it is asked already: what was dispatched is the servlet that has become asynchronous, and not yet over. */
    private boolean goesOn(HttpServletRequest request) {
        Object runs = request.getAttribute(asynchronous);
        return request.getDispatcherType() == DispatcherType.ASYNC
                && runs instanceof Asynchronous
                && ((Asynchronous) runs).isAt(place(request));
    }

    private static String place(HttpServletRequest request) {
        return request.getRequestURI() + "?" + request.getQueryString();
    }

    private static Outcome outcomeOf(HttpServletResponse response) {
        return response.getStatus() < FAILED ? Outcome.COMPLETED : Outcome.FAILED;
    }

    private static void refuse(
            HttpServletRequest request, HttpServletResponse response, Exception cause, int status, String body)
            throws IOException, ServletException {
        if (request.getDispatcherType() == DispatcherType.INCLUDE) {
            throw new ServletException(cause);
        }
        byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
        response.setStatus(status);
        response.setContentType("application/json");
        response.setContentLength(bytes.length);
        response.getOutputStream().write(bytes);
    }

    /** An asynchronous servlet with its permit: says how it went. */
    private static final class Asynchronous implements AsyncListener {
        private final Permit permit;
        private final String place;
        private final HttpServletResponse response;
        private volatile boolean over;

        Asynchronous(Permit permit, String place, HttpServletResponse response) {
            this.permit = permit;
            this.place = place;
            this.response = response;
        }

        boolean isAt(String place) {
            return !over && this.place.equals(place);
        }

        @Override
        public void onComplete(AsyncEvent event) {
            finish(outcomeOf(response));
        }

        @Override
        public void onTimeout(AsyncEvent event) {
            finish(Outcome.ABANDONED);
        }

        @Override
        public void onError(AsyncEvent event) {
            finish(Outcome.FAILED);
        }

        @Override
        public void onStartAsync(AsyncEvent event) {
            event.getAsyncContext().addListener(this);
        }

        private void finish(Outcome outcome) {
            over = true;
            permit.finish(outcome);
        }
    }
}

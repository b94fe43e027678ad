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
import java.util.function.Function;

/**
 * Asks before a servlet. What comes after it in the chain runs only with a permit, whose audit id is the request's attribute
 * {@link #AUDIT_ID}; a denied request is answered here. The answer's status says how the tool went: completed below 400,
 * failed from there and where the servlet throws, abandoned when an asynchronous one is given up.
 *
 * <p>Each dispatch for which it is mapped is asked and written down for itself: an asynchronous servlet that dispatches to
 * itself is asked again. Whoever does not want that, because what it dispatches to only renders an answer, leaves
 * {@link DispatcherType#ASYNC} out of the mapping; then a dispatch from another servlet to that path is not asked, either.
 *
 * <p>Where a servlet is included, and where a part of another answer is sent already, a denial is thrown, as the cause of a
 * {@link ServletException}: the answer is that of the servlet before. Else what that one wrote is dropped.
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
            if (wasAsynchronous || !goesOn(request, new Asynchronous(permit, response))) {
                permit.finish(outcome);
            }
        }
    }

    /** Whether the servlet is asynchronous and not over: then the listener will hear how it went. */
    private static boolean goesOn(HttpServletRequest request, AsyncListener listener) {
        if (!request.isAsyncStarted()) {
            return false;
        }
        try {
            request.getAsyncContext().addListener(listener);
            return true;
        } catch (IllegalStateException e) {
            // Another thread has ended it since.
            return false;
        }
    }

    private static Outcome outcomeOf(HttpServletResponse response) {
        return response.getStatus() < FAILED ? Outcome.COMPLETED : Outcome.FAILED;
    }

    private static void refuse(
            HttpServletRequest request, HttpServletResponse response, Exception cause, int status, String body)
            throws IOException, ServletException {
        if (request.getDispatcherType() == DispatcherType.INCLUDE || response.isCommitted()) {
            throw new ServletException(cause);
        }
        response.setStatus(status);
        if (response.getStatus() != status) {
            // An included servlet has forwarded here: it has no say in the status, either.
            throw new ServletException(cause);
        }
        response.resetBuffer();
        response.setContentType("application/json");
        byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
        response.setContentLength(bytes.length);
        try {
            response.getOutputStream().write(bytes);
        } catch (IllegalStateException e) {
            // The servlet before has opened the writer. Its encoding stays, which is none the worse: this is ASCII.
            response.getWriter().print(body);
        }
    }

    /** An asynchronous servlet with its permit: says how it went. */
    private static final class Asynchronous implements AsyncListener {
        private final Permit permit;
        private final HttpServletResponse response;

        Asynchronous(Permit permit, HttpServletResponse response) {
            this.permit = permit;
            this.response = response;
        }

        @Override
        public void onComplete(AsyncEvent event) {
            permit.finish(outcomeOf(response));
        }

        @Override
        public void onTimeout(AsyncEvent event) {
            permit.finish(Outcome.ABANDONED);
        }

        @Override
        public void onError(AsyncEvent event) {
            permit.finish(Outcome.FAILED);
        }

        @Override
        public void onStartAsync(AsyncEvent event) {
            event.getAsyncContext().addListener(this);
        }
    }
}

package dev.autonomygate.servlet;

import dev.autonomygate.DeniedException;
import dev.autonomygate.GateException;
import dev.autonomygate.Guard;
import dev.autonomygate.Outcome;
import dev.autonomygate.Permit;
import dev.autonomygate.ToolCall;
import jakarta.servlet.AsyncEvent;
import jakarta.servlet.AsyncListener;
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
            answer(response, denied.status(), denied.json());
            return;
        } catch (GateException e) {
            // What it was is for the operator, not for the caller.
            boolean malformed = e.kind() == GateException.Kind.MALFORMED;
            answer(
                    response,
                    malformed ? HttpServletResponse.SC_BAD_REQUEST : HttpServletResponse.SC_INTERNAL_SERVER_ERROR,
                    malformed ? "{\"error\":\"the call is malformed\"}" : "{\"error\":\"the call could not be decided\"}");
            return;
        }
        request.setAttribute(AUDIT_ID, permit.auditId());
        Outcome outcome = Outcome.FAILED;
        try {
            chain.doFilter(request, response);
            outcome = outcomeOf(response);
        } finally {
            if (request.isAsyncStarted()) {
                request.getAsyncContext().addListener(new Finish(permit, response));
            } else {
                permit.finish(outcome);
            }
        }
    }

    private static Outcome outcomeOf(HttpServletResponse response) {
        return response.getStatus() < FAILED ? Outcome.COMPLETED : Outcome.FAILED;
    }

    private static void answer(HttpServletResponse response, int status, String body) throws IOException {
        byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
        response.setStatus(status);
        response.setContentType("application/json");
        response.setContentLength(bytes.length);
        response.getOutputStream().write(bytes);
    }

    /** Says how an asynchronous servlet went. */
    private static final class Finish implements AsyncListener {
        private final Permit permit;
        private final HttpServletResponse response;

        Finish(Permit permit, HttpServletResponse response) {
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

import { GateError, line } from "./errors.js";
import { Denied, type Guard, type Permit, type ToolCall } from "./guard.js";

type Awaitable<T> = T | Promise<T>;

/** What a request asks for: a tool's name, or a call. */
export type ToolOf<Request> = (request: Request) => Awaitable<string | ToolCall>;

/** What is used of `node:http`'s response. */
export interface HttpResponse {
  statusCode: number;
  readonly writableFinished: boolean;
  readonly destroyed: boolean;
  setHeader(name: string, value: string): unknown;
  end(body: string): unknown;
  once(event: "close", listener: () => void): unknown;
}

/** Statuses from here on say that the tool failed. */
const FAILED = 400;

/**
 * Asks before a handler of `node:http`, or of Express 5: `gateHttp(guard, {tool})(req, res, next)`.
 *
 * `next` is called only with a permit, whose audit id is `req.auditId`. A denied request is answered here.
 */
export function gateHttp<Request extends object, Response extends HttpResponse>(
  guard: Guard,
  options: { tool: ToolOf<Request> },
): (req: Request, res: Response, next: () => unknown) => Promise<void> {
  return async (req, res, next) => {
    let permit: Permit;
    try {
      permit = await guard.ask(callOf(await options.tool(req)));
    } catch (error) {
      const { status, body } = refusal(error);
      res.statusCode = status;
      res.setHeader("content-type", "application/json");
      res.end(body);
      return;
    }
    // It went away while the decision was made: its tool would run for nobody.
    if (res.destroyed) {
      void permit.finish("abandoned");
      return;
    }
    (req as Request & { auditId?: string }).auditId = permit.auditId;
    res.once("close", () => {
      void permit.finish(!res.writableFinished ? "abandoned" : res.statusCode < FAILED ? "completed" : "failed");
    });
    await next();
  };
}

/** Asks before a handler that takes a `Request` and gives a `Response`. The permit is its second argument. */
export function gateFetch<Rest extends unknown[]>(
  guard: Guard,
  handler: (request: Request, permit: Permit, ...rest: Rest) => Awaitable<Response>,
  options: { tool: ToolOf<Request> },
): (request: Request, ...rest: Rest) => Promise<Response> {
  return async (request, ...rest) => {
    let permit: Permit;
    try {
      permit = await guard.ask(callOf(await options.tool(request)));
    } catch (error) {
      const { status, body } = refusal(error);
      return new Response(body, { status, headers: { "content-type": "application/json" } });
    }
    try {
      const response = await handler(request, permit, ...rest);
      void permit.finish(response.status < FAILED ? "completed" : "failed");
      return response;
    } catch (error) {
      void permit.finish("failed");
      throw error;
    }
  };
}

function callOf(asked: string | ToolCall): ToolCall {
  return typeof asked === "string" ? { tool: asked } : asked;
}

function refusal(error: unknown): { status: number; body: string } {
  if (error instanceof Denied) return { status: error.status, body: JSON.stringify(error) };
  if (error instanceof GateError && error.code === "malformed") {
    return { status: 400, body: JSON.stringify({ error: line(error) }) };
  }
  // What it was is for the operator, not for the caller.
  return { status: 500, body: JSON.stringify({ error: "the call could not be decided" }) };
}

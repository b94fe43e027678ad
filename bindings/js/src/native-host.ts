import { GateError, line, onlyKnown } from "./errors.js";
import type { Frames } from "./frames.js";
import { FactsNotLogged, type DecisionSink, type EnrollmentSource } from "./guard.js";

/** Where the native host is (`autonomy host serve`), and how to be let in. */
export interface NativeHostOptions {
  /** `http://127.0.0.1:7778`: without TLS, on a loopback address alone. */
  url?: string | URL;
  /** A Unix socket in place of `url`. Node alone. */
  socket?: string;
  /** The token. */
  token?: string;
  /** A file that holds the token and that nobody else can read. Node alone. */
  tokenFile?: string;
}

/** One request. @internal */
export interface HostRequest {
  method: "GET" | "POST";
  path: string;
  headers: Record<string, string>;
  body?: string;
  signal?: AbortSignal | undefined;
}

/** What came back. @internal */
export interface HostAnswer {
  status: number;
  body: string;
}

/** What carries a request; it rejects where there is no answer. @internal */
export type Transport = (request: HostRequest) => Promise<HostAnswer>;

/** Longest answer that is read. */
export const ANSWER_BYTES = 64 * 1024;

const OPTIONS = new Set(["url", "socket", "token", "tokenFile"]);

/** Look-ups and durable appends over HTTP. Each environment has a `NativeHost` of its own; this is what they share. */
export class BaseNativeHost implements EnrollmentSource, DecisionSink {
  readonly #transport: Transport;
  readonly #headers: Record<string, string>;

  /** @internal */
  constructor(options: NativeHostOptions, transport: Transport, token: string) {
    onlyKnown("the native host's options", options, OPTIONS);
    if (!/^[!-~]+$/.test(token)) {
      throw new GateError("malformed", "the token is empty or has other than printable characters: give it as the host has it");
    }
    this.#transport = transport;
    this.#headers = { authorization: `Bearer ${token}` };
  }

  /** What the host answered, as it came. */
  async lookUp(nodeId: string, signal?: AbortSignal): Promise<string> {
    const path = `/v1/enrollments/${encodeURIComponent(nodeId)}`;
    const request: HostRequest = { method: "GET", path, headers: this.#headers, signal };
    const { status, body } = await this.#transport(request).catch((error: unknown) => {
      if (signal?.aborted === true) throw error;
      // The connection that was kept may be dead. An append is never sent again: it may be in the log.
      return this.#transport(request);
    });
    if (status === 200) return body;
    throw new Error(`the native host answered \`${status}\`${said(body)}`);
  }

  /** Resolves when the host says that the frames are durable. */
  async append(frames: Frames, signal?: AbortSignal): Promise<void> {
    const { status, body } = await this.#transport({
      method: "POST",
      path: "/v1/frames",
      headers: { ...this.#headers, "content-type": "application/json" },
      body: `{"frames":${frames.json}}`,
      signal,
    });
    if (status === 200 && isReceipt(body)) return;
    if (status === 409) throw new FactsNotLogged(`the native host does not have the facts${said(body)}`);
    throw new Error(`the native host answered \`${status}\`${said(body)}`);
  }

  /** Whether the host answers. */
  async health(signal?: AbortSignal): Promise<boolean> {
    try {
      const { status } = await this.#transport({ method: "GET", path: "/v1/health", headers: this.#headers, signal });
      return status === 200;
    } catch {
      return false;
    }
  }
}

/** Whether it says where in the log the frames are. */
function isReceipt(body: string): boolean {
  try {
    const { first_seq, last_seq } = JSON.parse(body) as { first_seq?: unknown; last_seq?: unknown };
    return Number.isInteger(first_seq) && Number.isInteger(last_seq) && (first_seq as number) <= (last_seq as number);
  } catch {
    return false;
  }
}

function said(body: string): string {
  try {
    const { error } = JSON.parse(body) as { error?: unknown };
    return typeof error === "string" ? `: ${line(error)}` : "";
  } catch {
    return "";
  }
}

/** Refuses an address over which the token would be read by others. @internal */
export function addressOf(url: string | URL): URL {
  let address: URL;
  try {
    address = new URL(url);
  } catch {
    throw new GateError("malformed", `\`${url}\` is no address: give one like \`http://127.0.0.1:7778\``);
  }
  const loopback = /^(localhost|127(\.\d+){3}|\[::1\])$/.test(address.hostname);
  if (address.protocol !== "https:" && !(address.protocol === "http:" && loopback)) {
    throw new GateError("unsupported", `\`${url}\` is not loopback: the token would be read on the way, use https`);
  }
  return address;
}

/** `fetch` as a transport. @internal */
export function fetchTransport(url: string | URL): Transport {
  const address = addressOf(url);
  return async ({ method, path, headers, body, signal }) => {
    const response = await fetch(new URL(path, address), {
      method,
      headers,
      redirect: "error",
      ...(body === undefined ? {} : { body }),
      ...(signal === undefined ? {} : { signal }),
    });
    return { status: response.status, body: await bounded(response) };
  };
}

async function bounded(response: Response): Promise<string> {
  const reader = response.body?.getReader();
  if (reader === undefined) return "";
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let text = "";
  for (let bytes = 0; ; ) {
    const { done, value } = await reader.read();
    if (done) return text + decoder.decode();
    bytes += value.length;
    if (bytes > ANSWER_BYTES) {
      await reader.cancel();
      throw new Error(`the answer is longer than ${ANSWER_BYTES} bytes`);
    }
    text += decoder.decode(value, { stream: true });
  }
}

import { closeSync, fstatSync, openSync, readFileSync } from "node:fs";
import { Agent, request as httpRequest } from "node:http";
import { Agent as TlsAgent, request as httpsRequest } from "node:https";

import { GateError } from "./errors.js";
import { ANSWER_BYTES, BaseNativeHost, addressOf, type NativeHostOptions, type Transport } from "./native-host.js";

/** Bits of a file's mode that let anybody but its owner in. */
const OTHERS = 0o077;

/** Look-ups and durable appends at the native host of this machine (`autonomy host serve`). */
export class NativeHost extends BaseNativeHost {
  constructor(options: NativeHostOptions) {
    super(options, nodeTransport(options), tokenOf(options));
  }
}

function tokenOf({ token, tokenFile }: NativeHostOptions): string {
  if (token !== undefined) return token;
  if (tokenFile === undefined) {
    throw new GateError("malformed", "there is no token: give `token` or `tokenFile`");
  }
  // What is looked at is what is read, whatever is put in its place meanwhile.
  const file = openSync(tokenFile, "r");
  try {
    const { mode } = fstatSync(file);
    // Windows has no such bits.
    if (process.platform !== "win32" && (mode & OTHERS) !== 0) {
      const found = (mode & 0o777).toString(8);
      throw new GateError("refused", `others can read \`${tokenFile}\` (mode \`${found}\`): run \`chmod 600\` on it`);
    }
    return readFileSync(file, "utf8").trim();
  } finally {
    closeSync(file);
  }
}

function nodeTransport({ url, socket }: NativeHostOptions): Transport {
  if ((url === undefined) === (socket === undefined)) {
    throw new GateError("malformed", "where the native host is must be said once: give `url` or `socket`");
  }
  const address = url === undefined ? undefined : addressOf(url);
  const tls = address?.protocol === "https:";
  const request = tls ? httpsRequest : httpRequest;
  // A connection for each call would cost more than the call.
  const agent = tls ? new TlsAgent({ keepAlive: true }) : new Agent({ keepAlive: true });
  const where =
    address === undefined
      ? { socketPath: socket, host: "localhost" }
      : { protocol: address.protocol, host: address.hostname.replace(/^\[|\]$/g, ""), port: address.port };
  return ({ method, path, headers, body, signal }) =>
    new Promise((resolve, reject) => {
      const length = body === undefined ? {} : { "content-length": Buffer.byteLength(body) };
      const sent = request({ ...where, agent, method, path, headers: { ...headers, ...length }, signal }, (response) => {
        const chunks: Buffer[] = [];
        let bytes = 0;
        response.on("data", (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > ANSWER_BYTES) sent.destroy(new Error(`the answer is longer than ${ANSWER_BYTES} bytes`));
          else chunks.push(chunk);
        });
        response.on("end", () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString("utf8") }));
        // An answer that breaks off ends without its end.
        response.on("error", reject);
        response.on("close", () => reject(new Error("the answer broke off")));
      });
      sent.on("error", reject);
      sent.end(body);
    });
}

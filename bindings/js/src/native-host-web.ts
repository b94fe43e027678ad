import { GateError } from "./errors.js";
import { BaseNativeHost, fetchTransport, type NativeHostOptions } from "./native-host.js";

/** Look-ups and durable appends at a native host (`autonomy host serve`), by `fetch`. */
export class NativeHost extends BaseNativeHost {
  constructor(options: NativeHostOptions) {
    const { url, socket, token, tokenFile } = options;
    if (url === undefined || socket !== undefined) {
      throw new GateError("unsupported", "a Unix socket cannot be reached from here: give `url`");
    }
    if (token === undefined || tokenFile !== undefined) {
      throw new GateError("unsupported", "a token file cannot be read from here: give `token`");
    }
    super(options, fetchTransport(url), token);
  }
}

// A server whose endpoint runs only where the gate allows it, with each decision on disk before: beside `autonomy host serve`,
// `AUTONOMY_NODE_ID=robot-7 AUTONOMY_HOST_TOKEN_FILE=host.token node server.mjs bundle.tar release.pub.pem`; then `curl 127.0.0.1:8080/`.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { Gate, Guard, NativeHost, gateHttp } from "autonomy-gate";

const [, , bundle, trustedKey, hostUrl = "http://127.0.0.1:7778", port = "8080"] = process.argv;
const gate = await Gate.load({
  bundle: readFileSync(bundle),
  trustedKeys: readFileSync(trustedKey, "utf8"),
  nodeId: process.env.AUTONOMY_NODE_ID,
  mode: "enforce",
});
const host = new NativeHost({ url: hostUrl, tokenFile: process.env.AUTONOMY_HOST_TOKEN_FILE });
const gated = gateHttp(new Guard({ gate, source: host, sink: host }), { tool: () => "arm.move" });
const server = createServer((req, res) => gated(req, res, () => res.end(`moved, ${req.auditId}\n`)));
server.listen(Number(port), "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));

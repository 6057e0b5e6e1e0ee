import type { Interceptor } from "@connectrpc/connect";
import { compressionGzip, createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { readFileSync } from "node:fs";
import type { Connection, Options } from "./suite.ts";

/** Connects with @connectrpc/connect-node. */
export function connect(target: string, options: Options): Connection {
  const { tls, key } = options;
  const baseUrl = `${tls ? "https" : "http"}://${target}`;
  const sessionManager = new Http2SessionManager(
    baseUrl,
    options.pingSeconds ? { pingIntervalMs: options.pingSeconds * 1000, pingIdleConnection: true } : {},
    {
      // In MB. Node.js drops what comes to a session that has more than 10 MB under way, answers too.
      maxSessionMemory: 64,
      ...(tls && {
        ca: readFileSync(tls.ca),
        cert: tls.cert && readFileSync(tls.cert),
        key: tls.key && readFileSync(tls.key),
      }),
    },
  );
  const showKey: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${key}`);
    return next(request);
  };
  const transport = createGrpcTransport({
    baseUrl,
    sessionManager,
    interceptors: key ? [showKey] : [],
    ...(options.gzip && { sendCompression: compressionGzip }),
  });
  return { transport, close: () => sessionManager.abort() };
}

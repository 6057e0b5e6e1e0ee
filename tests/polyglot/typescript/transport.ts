import { Code } from "@connectrpc/connect";
import { setTimeout as sleep } from "node:timers/promises";
import { deploy, only, spec } from "./cases.ts";
import { check, equal, failed } from "./check.ts";
import { Forward } from "./forward.ts";
import type { Options, Suite } from "./suite.ts";

/** What handshakes that fail are told as: connect-node has no code of its own for them. */
const HANDSHAKE = [Code.Unavailable, Code.Internal, Code.Canceled];

/** Connects by TLS where the server's authority is trusted, and only there. */
export async function ownCA(suite: Suite): Promise<void> {
  const { tls } = suite.config;
  await tries(suite, tls.target, { tls: { ca: tls.ca } });
  await failed(tries(suite, tls.target, { tls: { ca: tls.stranger_ca } }), ...HANDSHAKE);
  await failed(tries(suite, tls.target, {}), ...HANDSHAKE);
}

/** Shows a certificate to a server that wants it. */
export async function certificates(suite: Suite): Promise<void> {
  const { mtls } = suite.config;
  await tries(suite, mtls.target, { tls: mtls });
  await failed(tries(suite, mtls.target, { tls: { ca: mtls.ca } }), ...HANDSHAKE);
  const stranger = { ca: mtls.ca, cert: mtls.stranger_cert, key: mtls.stranger_key };
  await failed(tries(suite, mtls.target, { tls: stranger }), ...HANDSHAKE);
}

async function tries(suite: Suite, target: string, options: Options): Promise<void> {
  const client = suite.connect(target, { key: suite.config.root_key, ...options });
  try {
    await client.functions.listFunctions({});
  } finally {
    client.close();
  }
}

/** Leaves a connection alone for longer than it takes a server that minds the pings to close it. */
export async function keepalive(suite: Suite): Promise<void> {
  const forward = await Forward.to(suite.config.tls.target);
  const tls = { ca: suite.config.tls.ca };
  const client = suite.connect(forward.target, { key: suite.config.root_key, tls, pingSeconds: 11 });
  await client.functions.listFunctions({});
  const { sent, received } = forward;
  await sleep(46_000);
  check(forward.sent > sent, "no pings were sent");
  check(forward.received > received, "no pings were answered");
  await client.functions.listFunctions({});
  equal(forward.connections, 1, "the number of connections");
  client.close();
  forward.close();
}

/** Pings more often than the server allows: it closes the connection, and another one serves the next call. */
export async function pings(suite: Suite): Promise<void> {
  const forward = await Forward.to(suite.config.tls.target);
  const tls = { ca: suite.config.tls.ca };
  const client = suite.connect(forward.target, { key: suite.config.root_key, tls, pingSeconds: 1 });
  await client.functions.listFunctions({});
  await sleep(8_000);
  await client.functions.listFunctions({});
  check(forward.connections > 1, "the server did not mind");
  client.close();
  forward.close();
}

/** Sends and gets a body in a tenth of its size. */
export async function compression(suite: Suite): Promise<void> {
  await deploy(suite, "compressed", "cat");
  const forward = await Forward.to(suite.config.target);
  const client = suite.connect(forward.target, { key: suite.config.root_key, gzip: true });
  const body = "homing ".repeat(30_000);
  const { invocation } = await client.invocations.invoke({ spec: spec(suite, "compressed", body) });
  const answer = invocation?.result?.payload?.body;
  check(answer?.case === "data" && Buffer.from(answer.value).toString() === body, "the body is another one");
  check(forward.sent < body.length / 10, `${forward.sent} bytes were sent`);
  check(forward.received < body.length / 10, `${forward.received} bytes were received`);
  client.close();
  forward.close();
}

/** Meets the limits of messages: those of clients for answers, and the server's for requests. */
export async function sizes(suite: Suite): Promise<void> {
  const { functions, invocations } = suite.root;
  await deploy(suite, "large", "cat");
  await functions.pauseFunction({ name: suite.named("large") });
  const requests = Array.from({ length: 20 }, () => ({ spec: spec(suite, "large", "x".repeat(256 << 10)) }));
  const { results } = await invocations.batchInvokeAsync({ requests });
  equal(results.filter(({ outcome }) => outcome.case === "accepted").length, requests.length, "what was accepted");

  // Pages fit into the 4 MiB that clients take, however many records are asked for.
  let [found, pages, pageToken] = [0, 0, ""];
  do {
    const list = { filter: only(suite, "large"), pageSize: 1000, includePayload: true, pageToken };
    const page = await invocations.listInvocations(list);
    found += page.invocations.length;
    pages += 1;
    pageToken = page.nextPageToken;
  } while (pageToken);
  equal(found, requests.length, "the number of records");
  check(pages > 1, "5 MiB fit into one page");

  const error = await failed(
    invocations.invoke({ spec: spec(suite, "large", "x".repeat(17 << 20)) }),
    Code.ResourceExhausted,
  );
  equal(error.details.length, 0, "the number of details");
}

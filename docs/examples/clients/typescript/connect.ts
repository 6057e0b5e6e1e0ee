// First calls with homing from TypeScript, with Connect: now, later, and watching.
import { Code, ConnectError, createClient, type Client, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { setTimeout as sleep } from "node:timers/promises";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../gen/es/google/rpc/error_details_pb.js";
import { FunctionService } from "../gen/es/homing/v1/function_service_pb.js";
import { InvocationState } from "../gen/es/homing/v1/invocation_pb.js";
import { InvocationService, type WatchResultsResponse } from "../gen/es/homing/v1/invocation_service_pb.js";

const showKey: Interceptor = (next) => (request) => {
  request.header.set("authorization", `Bearer ${process.env.HOMING_API_KEY}`);
  return next(request);
};
const transport = createGrpcTransport({
  baseUrl: `http://${process.env.HOMING_TARGET}`,
  interceptors: [showKey],
  defaultTimeoutMs: 60_000,
  pingIntervalMs: 30_000,
  pingTimeoutMs: 10_000,
  writeMaxBytes: 4 << 20,
});
const functions = createClient(FunctionService, transport);
const invocations = createClient(InvocationService, transport);

/** Returns why a call was refused, for programs; undefined where no server of homing's answered. */
function reason(error: ConnectError): string | undefined {
  return error.findDetails(ErrorInfoSchema).find(({ domain }) => domain === "homing.dev")?.reason;
}

/** Returns what is wrong with a request, by the path of the field. */
function fields(error: ConnectError): Record<string, string> {
  const violations = error.findDetails(BadRequestSchema).flatMap((bad) => bad.fieldViolations);
  return Object.fromEntries(violations.map(({ field, description }) => [field, description]));
}

/** Makes an idempotent call again while that may help. */
async function retried<T>(call: () => Promise<T>, forMs = 60_000): Promise<T> {
  const end = Date.now() + forMs;
  for (let backoff = 200; ; backoff = Math.min(2 * backoff, 5_000)) {
    try {
      return await call();
    } catch (error) {
      const delay = retryDelay(ConnectError.from(error), backoff);
      if (delay === undefined || Date.now() + delay > end) {
        throw error;
      }
      await sleep(delay);
    }
  }
}

/** Returns when a call may be made again: where the server could not be reached, or said when. */
function retryDelay(error: ConnectError, backoff: number): number | undefined {
  for (const { retryDelay } of error.findDetails(RetryInfoSchema)) {
    return Number(retryDelay?.seconds ?? 0) * 1000 + (retryDelay?.nanos ?? 0) / 1e6;
  }
  // A connection that was lost may be ABORTED or CANCELED with Connect, then without a reason.
  const lost = reason(error) === undefined && [Code.Aborted, Code.Canceled].includes(error.code);
  return lost || error.code === Code.Unavailable ? Math.random() * backoff : undefined;
}

/**
 * Yields what ends, each once, and bookmarks, of which the first says that the watch is in place. Goes on where a
 * connection was lost; whoever wants to end it breaks off.
 */
async function* results(client: Client<typeof InvocationService>, functions: string[]): AsyncGenerator<WatchResultsResponse> {
  const request = { filter: { functions }, resumeToken: "" };
  for (;;) {
    try {
      for await (const message of client.watchResults(request, { timeoutMs: 0 })) {
        yield message;
        request.resumeToken = message.resumeToken;
      }
    } catch (caught) {
      const error = ConnectError.from(caught);
      const delay = retryDelay(error, 1000) ?? (reason(error) === "SLOW_CONSUMER" ? 100 : undefined);
      if (delay === undefined) {
        throw error;
      }
      await sleep(delay);
    }
  }
}

const args = ["tr", "a-z", "A-Z"];
await functions.deployFunction({ function: { name: "shout", source: { case: "command", value: { args } } } });
const text = new TextEncoder().encode("later is better");
const spec = { function: "shout", payload: { body: { case: "data" as const, value: text } } };
const now = await invocations.invoke({ spec }, { timeoutMs: 30_000 });
const body = now.invocation?.result?.payload?.body;
if (body?.case === "data") {
  console.log(new TextDecoder().decode(body.value));
}

const later = await retried(() => invocations.invokeAsync({ spec, requestId: "order-7" }));
const ended = await invocations.waitInvocation({ id: later.invocation?.id });
console.log(InvocationState[ended.invocation!.state]);

try {
  await invocations.invoke({ spec: { function: "No such" } });
} catch (caught) {
  const error = ConnectError.from(caught);
  console.log(Code[error.code], reason(error), Object.keys(fields(error)));
}

let asked = false;
for await (const { event } of results(invocations, ["shout"])) {
  if (!asked) {
    asked = true;
    await invocations.invokeAsync({ spec });
  }
  if (event.case === "invocation") {
    console.log("watched", InvocationState[event.value.state]);
    break;
  }
}
process.exit(); // without waiting for the connection to be idle

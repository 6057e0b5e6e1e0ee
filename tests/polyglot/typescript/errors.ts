import { durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { setTimeout as sleep } from "node:timers/promises";
import { createKey, deploy, only, spec } from "./cases.ts";
import { check, equal, explained, failed, next, refused } from "./check.ts";
import { BadRequestSchema, RetryInfoSchema } from "./gen/es/google/rpc/error_details_pb.js";
import type { WaitInvocationResponse } from "./gen/es/homing/v1/invocation_service_pb.js";
import { Scope } from "./gen/es/homing/v1/key_service_pb.js";
import type { Suite } from "./suite.ts";

/** Reads the reason of an error, and what it is about. */
export async function errorInfo({ root }: Suite): Promise<void> {
  const info = await refused(root.functions.getFunction({ name: "nobody" }), Code.NotFound, "FUNCTION_NOT_FOUND");
  equal(info.metadata["function"], "nobody", "the function");
}

/** Reads which fields break rules, all of them at once. */
export async function badRequest(suite: Suite): Promise<void> {
  await deploy(suite, "picky", "cat");
  const wrong = spec(suite, "picky", "x".repeat(300 << 10));
  wrong.attemptTimeout = durationFromMs(48 * 3600 * 1000);
  const error = await failed(suite.root.invocations.invoke({ spec: wrong }), Code.InvalidArgument);
  explained(error, "INVALID_REQUEST");
  const [bad] = error.findDetails(BadRequestSchema);
  const fields = bad.fieldViolations.map(({ field, description }) => (description ? field : ""));
  equal(fields.sort().join(), "spec.attempt_timeout,spec.payload.data", "what is said of fields");
}

/** Reads when to come again, and does. */
export async function retryInfo(suite: Suite): Promise<void> {
  const key = await createKey(suite, { name: suite.named("hurried"), scopes: [Scope.READ], maxPerSecond: 0.5 });
  const client = suite.connect(suite.config.target, { key });
  const hurry = async () => {
    for (;;) {
      await client.functions.listFunctions({});
    }
  };
  const error = await failed(hurry(), Code.ResourceExhausted);
  explained(error, "RATE_LIMITED");
  const [info] = error.findDetails(RetryInfoSchema);
  const wait = durationMs(info.retryDelay!);
  check(0 < wait && wait <= 2000, `it is to come again in ${wait} ms`);
  await sleep(wait);
  await client.functions.listFunctions({});
  client.close();
}

/** Deadlines end the wait of the caller; what runs may still end, and its id has come before. */
export async function deadlines(suite: Suite): Promise<void> {
  await deploy(suite, "late", "sleep", "5");
  const watch = suite.root.invocations.watchResults({ filter: only(suite, "late") })[Symbol.asyncIterator]();
  await next(watch);
  const error = await failed(
    suite.root.invocations.invoke({ spec: spec(suite, "late", "") }, { timeoutMs: 3000 }),
    Code.DeadlineExceeded,
  );
  let seen = await next(watch);
  while (seen.event.case !== "invocation") {
    seen = await next(watch);
  }
  // Connect has no initial metadata of calls that fail.
  if (suite.name === "grpc-js") {
    equal(error.metadata.get("homing-invocation-id"), seen.event.value.id, "the id of what ended");
  }
}

/** Waits end before their deadline, with the record as it is then. */
export async function waits(suite: Suite): Promise<void> {
  const { invocations } = suite.root;
  await deploy(suite, "slow", "sleep", "60");
  const accepted = await invocations.invokeAsync({ spec: spec(suite, "slow", "") });
  const { id } = accepted.invocation!;
  const wait = async (tries: number): Promise<WaitInvocationResponse> => {
    try {
      return await invocations.waitInvocation({ id }, { timeoutMs: 2000 });
    } catch (error) {
      // On a busy machine the quarter of a second that the server leaves may be too short.
      check(tries > 0 && ConnectError.from(error).code === Code.DeadlineExceeded, String(error));
      return wait(tries - 1);
    }
  };
  const waited = await wait(4);
  check(waited.invocation!.endTime === undefined, "it has ended");
  await invocations.stopInvocation({ id });
}

/** Cancels a call and a stream that are under way. */
export async function cancels(suite: Suite): Promise<void> {
  const { invocations } = suite.root;
  await deploy(suite, "cancelled", "sleep", "5");
  const call = new AbortController();
  setTimeout(() => call.abort(), 300);
  await failed(invocations.invoke({ spec: spec(suite, "cancelled", "") }, { signal: call.signal }), Code.Canceled);

  const stream = new AbortController();
  const results = invocations.watchResults({ filter: only(suite, "cancelled") }, { signal: stream.signal });
  const watch = results[Symbol.asyncIterator]();
  await next(watch);
  stream.abort();
  await failed(next(watch), Code.Canceled);
}

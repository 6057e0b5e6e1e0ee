import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { setTimeout as sleep } from "node:timers/promises";
import { deploy, only, spec } from "./cases.ts";
import { check, equal, failed, next, refused } from "./check.ts";
import { InvocationState } from "./gen/es/homing/v1/invocation_pb.js";
import type { Suite } from "./suite.ts";

/** What connections that are lost are told as: connect-node has no code of its own for them. */
const LOST = [Code.Unavailable, Code.Canceled, Code.Aborted];

/** Resumes a watch, and repeats a call, after the server was killed: nothing is missed, repeated or run twice. */
export async function resumes(suite: Suite): Promise<void> {
  const { invocations } = suite.root;
  await deploy(suite, "resumed", "cat");
  const filter = only(suite, "resumed");
  let watch = invocations.watchResults({ filter })[Symbol.asyncIterator]();
  equal((await next(watch)).event.case, "bookmark", "the beginning of a watch");

  const first = await invocations.invokeAsync({ spec: spec(suite, "resumed", "") });
  let seen = await next(watch);
  while (seen.event.case !== "invocation") {
    seen = await next(watch);
  }
  equal(seen.event.value.id, first.invocation!.id, "what ended first");
  let token = seen.resumeToken;

  const wanted = new Set<string>();
  for (let count = 0; count < 3; count += 1) {
    const later = spec(suite, "resumed", "");
    later.scheduleTime = timestampFromMs(Date.now() + 1000);
    wanted.add((await invocations.invokeAsync({ spec: later })).invocation!.id);
  }
  await suite.ask("kill the server");
  const untilEnd = async () => {
    // What was on its way comes still.
    for (;;) {
      seen = await next(watch);
      token = seen.resumeToken;
      if (seen.event.case === "invocation") {
        wanted.delete(seen.event.value.id);
      }
    }
  };
  const lost = suite.name === "connect-node" ? LOST : [Code.Unavailable];
  await failed(untilEnd(), ...lost);
  const again = { spec: spec(suite, "resumed", ""), requestId: suite.named("again") };
  await failed(invocations.invokeAsync(again), ...lost);
  await suite.ask("start the server");

  const made = await retried(() => invocations.invokeAsync(again));
  const repeated = await invocations.invokeAsync(again);
  equal(repeated.invocation!.id, made.invocation!.id, "the invocation of the same request id");
  check(!made.duplicate && repeated.duplicate, "the second one is the duplicate");
  wanted.add(made.invocation!.id);

  watch = invocations.watchResults({ filter, resumeToken: token })[Symbol.asyncIterator]();
  while (wanted.size > 0) {
    const { event } = await next(watch);
    if (event.case === "invocation") {
      check(wanted.delete(event.value.id), `${event.value.id} was not to be expected, or not twice`);
      equal(event.value.state, InvocationState.SUCCEEDED, "the state");
    }
  }
}

/** Repeats a call while the server cannot be reached. */
async function retried<T>(call: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      check(error instanceof ConnectError && LOST.includes(error.code), `it failed with ${String(error)}`);
      await sleep(200);
    }
  }
}

/** Tokens that are none are refused. */
export async function wrongToken({ root }: Suite): Promise<void> {
  const watch = root.invocations.watchResults({ resumeToken: "none" })[Symbol.asyncIterator]();
  await refused(next(watch), Code.InvalidArgument, "INVALID_REQUEST");
}

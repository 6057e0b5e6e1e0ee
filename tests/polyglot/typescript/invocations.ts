import { create } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { createHash } from "node:crypto";
import { deploy, ended, invokeAsync, only, spec } from "./cases.ts";
import { check, equal, explained, failed, refused, text } from "./check.ts";
import { BadRequestSchema } from "./gen/es/google/rpc/error_details_pb.js";
import { DeadLetterKind } from "./gen/es/homing/v1/dead_letter_pb.js";
import { InvocationState } from "./gen/es/homing/v1/invocation_pb.js";
import { InvocationOrder } from "./gen/es/homing/v1/invocation_service_pb.js";
import { LogStream } from "./gen/es/homing/v1/log_service_pb.js";
import { HttpOptionsSchema } from "./gen/es/homing/v1/payload_pb.js";
import { RetryPolicySchema } from "./gen/es/homing/v1/policy_pb.js";
import type { Suite } from "./suite.ts";

const MEBI = 1 << 20;

/** Invokes a function and has its answer, with the id before it. */
export async function invokes(suite: Suite): Promise<void> {
  await deploy(suite, "shown", "sh", "-c", 'echo "$Http_X_Color"; cat');
  const shown = spec(suite, "shown", "hello");
  const headers = ["blue", "red"].map((value) => ({ name: "X-Color", value }));
  shown.http = create(HttpOptionsSchema, { headers });
  let id: string | null = null;
  const { invocation } = await suite.root.invocations.invoke(
    { spec: shown },
    { onHeader: (header) => (id = header.get("homing-invocation-id")) },
  );
  equal(invocation!.state, InvocationState.SUCCEEDED, "the state");
  equal(invocation!.result!.statusCode, 200, "the status code");
  equal(text(invocation!.result), "blue, red\nhello", "the answer");
  equal(id, invocation!.id, "the id in the metadata");
}

/** Streams an answer: its head, its parts, and the end. */
export async function streams(suite: Suite): Promise<void> {
  await deploy(suite, "streamed", "cat");
  const body = "0123456789abcdef".repeat((100 * 1024) / 16);
  const request = { spec: spec(suite, "streamed", body), timeout: durationFromMs(60_000) };
  const order: (string | undefined)[] = [];
  const read: Uint8Array[] = [];
  for await (const { part } of suite.root.invocations.invokeStream(request)) {
    if (order.at(-1) !== part.case) {
      order.push(part.case);
    }
    if (part.case === "head") {
      equal(part.value.statusCode, 200, "the status code");
    } else if (part.case === "data") {
      read.push(part.value);
    } else if (part.case === "invocation") {
      equal(part.value.state, InvocationState.SUCCEEDED, "the state");
    }
  }
  equal(order.join(), "head,data,invocation", "the order of what came");
  equal(Buffer.concat(read).toString(), body, "the body");
}

/** Accepts invocations, once for each request id. */
export async function accepts(suite: Suite): Promise<void> {
  const { invocations } = suite.root;
  await deploy(suite, "later", "cat");
  const request = { spec: spec(suite, "later", "now or later"), requestId: suite.named("once") };
  const accepted = await invocations.invokeAsync(request);
  const repeated = await invocations.invokeAsync(request);
  equal(repeated.invocation!.id, accepted.invocation!.id, "the invocation of the same request id");
  check(!accepted.duplicate && repeated.duplicate, "the second one is the duplicate");
  const other = invocations.invokeAsync({ ...request, spec: spec(suite, "later", "else") });
  await refused(other, Code.AlreadyExists, "REQUEST_ID_REUSED");

  const { id, result } = await ended(suite, accepted.invocation!.id, InvocationState.SUCCEEDED);
  equal(text(result), "now or later", "the answer");
  const { invocation } = await invocations.getInvocation({ id, includePayload: true });
  equal(text(invocation!.spec), "now or later", "the payload");
  check(invocation!.events.length > 0 && invocation!.attempts.length === 1, "it has another history");
}

/** Batches tell of each invocation by itself, of those refused with the status that a call would have had. */
export async function batches(suite: Suite): Promise<void> {
  const { invocations } = suite.root;
  await deploy(suite, "many", "cat");
  const requests = ["many", "none", "many"].map((name) => ({ spec: spec(suite, name, "") }));
  const [first, none, last] = (await invocations.batchInvokeAsync({ requests })).results.map(({ outcome }) => outcome);
  check(none.case === "error", "what has no function was accepted");
  const error = new ConnectError(none.value.message, none.value.code);
  error.details = none.value.details.map(({ typeUrl, value }) => ({ type: typeUrl.split("/").at(-1)!, value }));
  equal(error.code, Code.NotFound, "the code");
  equal(explained(error, "FUNCTION_NOT_FOUND").metadata["function"], suite.named("none"), "the function");
  check(first.case === "accepted" && last.case === "accepted", "the others were refused");
  const ids = [first, last].map(({ value }) => value.invocation!.id);
  for (const id of ids) {
    await ended(suite, id, InvocationState.SUCCEEDED);
  }

  const list = { filter: only(suite, "many"), pageSize: 1, order: InvocationOrder.OLDEST_FIRST };
  const page = await invocations.listInvocations(list);
  equal(page.invocations[0].id, ids[0], "the first one");
  const next = await invocations.listInvocations({ ...list, pageToken: page.nextPageToken });
  equal(next.invocations[0].id, ids[1], "the second one");
  const { counts } = await invocations.countInvocations({ filter: only(suite, "many") });
  equal(counts.length, 1, "the number of states");
  equal(counts[0].state, InvocationState.SUCCEEDED, "the state");
  equal(counts[0].count, 2n, "the count");
}

/** Stops one, then all that match a filter, and runs others again. */
export async function stops(suite: Suite): Promise<void> {
  const { invocations } = suite.root;
  await deploy(suite, "stopped", "cat");
  const ids: string[] = [];
  for (let count = 0; count < 3; count += 1) {
    const later = spec(suite, "stopped", "");
    later.scheduleTime = timestampFromMs(Date.now() + 3_600_000);
    const { invocation } = await invocations.invokeAsync({ spec: later });
    equal(invocation!.state, InvocationState.SCHEDULED, "the state");
    ids.push(invocation!.id);
  }
  const { invocation } = await invocations.stopInvocation({ id: ids[0], reason: "one" });
  equal(invocation!.state, InvocationState.STOPPED, "the state");
  equal(invocation!.stopRequest!.reason, "one", "the reason");
  await refused(invocations.stopInvocation({ id: ids[0] }), Code.FailedPrecondition, "INVOCATION_ENDED");

  const filter = only(suite, "stopped");
  equal((await done(invocations.bulkStop({ filter, dryRun: true }))).matched, 2n, "what would be stopped");
  const all = { filter, reason: "all", requestId: suite.named("stop") };
  equal((await done(invocations.bulkStop(all))).stopped, 2n, "what was stopped");
  equal((await done(invocations.bulkStop(all))).stopped, 2n, "what was stopped by the call that is repeated");

  await deploy(suite, "again", "cat");
  const { id } = await ended(suite, await invokeAsync(suite, "again", "first"), InvocationState.SUCCEEDED);
  const rerun = await invocations.rerunInvocation({ id, payload: spec(suite, "again", "second").payload });
  equal(rerun.invocation!.rerunOf, id, "what runs again");
  const { result } = await ended(suite, rerun.invocation!.id, InvocationState.SUCCEEDED);
  equal(text(result), "second", "the answer");
  const bulk = { filter: only(suite, "again"), requestId: suite.named("rerun"), includeRerun: true };
  equal((await done(invocations.bulkRerun(bulk))).accepted, 2n, "what runs again");
  equal((await done(invocations.bulkRerun(bulk))).accepted, 2n, "what ran again by the call that is repeated");
  const { counts } = await invocations.countInvocations({ filter: only(suite, "again") });
  equal(
    counts.reduce((sum, { count }) => sum + count, 0n),
    4n,
    "the number of invocations",
  );
}

/** Returns the last answer of a call about many. */
async function done<T extends { done: boolean }>(answers: AsyncIterable<T>): Promise<T> {
  let last: T | undefined;
  for await (const answer of answers) {
    last = answer;
  }
  check(last?.done === true, "it broke off");
  return last;
}

/** Large bodies are written and read apart. */
export async function largeBodies(suite: Suite): Promise<void> {
  const { invocations, payloads } = suite.root;
  await deploy(suite, "copied", "cat");
  const body = Buffer.from("0123456789abcdef".repeat((3 * MEBI) / 16));
  async function* upload() {
    yield { part: { case: "size" as const, value: BigInt(body.length) } };
    for (let start = 0; start < body.length; start += MEBI) {
      yield { part: { case: "data" as const, value: body.subarray(start, start + MEBI) } };
    }
  }
  const { blob } = await payloads.writePayload(upload());
  equal(Buffer.from(blob!.sha256).toString("hex"), createHash("sha256").update(body).digest("hex"), "the digest");

  const copied = spec(suite, "copied", "");
  copied.payload!.body = { case: "blob", value: blob! };
  const { invocation } = await invocations.invoke({ spec: copied });
  const result = invocation!.result!.payload!.body;
  check(result.case === "blob", "there is no reference to its result");
  const read: Uint8Array[] = [];
  for await (const { data } of payloads.readPayload({ blobId: result.value.id })) {
    read.push(data);
  }
  check(Buffer.concat(read).equals(body), "the body is another one");

  async function* tooMuch() {
    yield { part: { case: "size" as const, value: BigInt(65 * MEBI) } };
  }
  const error = await failed(payloads.writePayload(tooMuch()), Code.InvalidArgument);
  explained(error, "INVALID_REQUEST");
  equal(error.findDetails(BadRequestSchema)[0].fieldViolations.length, 1, "the number of fields");
}

/** Logs are followed to their end. */
export async function logs(suite: Suite): Promise<void> {
  await deploy(suite, "talks", "sh", "-c", "echo one >&2; echo two >&2; cat");
  const id = await invokeAsync(suite, "talks", "");
  const lines: string[] = [];
  for await (const { stream, text } of suite.root.logs.tailLogs({ id, follow: true })) {
    equal(stream, LogStream.STDERR, "the stream");
    lines.push(text);
  }
  equal(lines.join(), "one,two", "the log");
  for await (const line of suite.root.logs.tailFunctionLogs({ function: suite.named("talks"), tail: 1 })) {
    equal(line.text, "two", "the last line of the function");
    equal(line.invocationId, id, "whose it is");
  }
}

/** Dead letters are listed, redriven and purged. */
export async function deadLetters(suite: Suite): Promise<void> {
  const { deadLetters, invocations } = suite.root;
  await deploy(suite, "fails", "false");
  for (let count = 0; count < 2; count += 1) {
    const once = spec(suite, "fails", "");
    once.retryPolicy = create(RetryPolicySchema, { maxAttempts: 1 });
    const { invocation } = await invocations.invokeAsync({ spec: once });
    const { failure } = await ended(suite, invocation!.id, InvocationState.FAILED);
    equal(failure!.reason, "EXIT_STATUS", "why it failed");
  }
  const letters = (await deadLetters.listDeadLetters({ filter: { functions: [suite.named("fails")] } })).deadLetters;
  equal(letters.length, 2, "the number of dead letters");
  equal(letters[0].kind, DeadLetterKind.INVOCATION, "the kind");
  const redriven = await done(deadLetters.redriveDeadLetters({ filter: { ids: [letters[0].id] } }));
  equal(redriven.rerun, 1n, "what runs again");
  const filter = { ids: [letters[1].id] };
  const dry = await done(deadLetters.purgeDeadLetters({ filter, dryRun: true }));
  equal(dry.matched, 1n, "what would be forgotten");
  equal((await done(deadLetters.purgeDeadLetters({ filter }))).purged, 1n, "what was forgotten");
}

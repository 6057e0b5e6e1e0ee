import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { keys, scopes } from "./access.ts";
import { apiKeys, secrets, signingKeys } from "./admin.ts";
import { equal } from "./check.ts";
import { badRequest, cancels, deadlines, errorInfo, retryInfo, waits } from "./errors.ts";
import type { Function } from "./gen/es/homing/v1/function_pb.js";
import {
  type Invocation,
  type InvocationFilterSchema,
  type InvocationSpec,
  InvocationSpecSchema,
  type InvocationState,
} from "./gen/es/homing/v1/invocation_pb.js";
import type { KeySchema } from "./gen/es/homing/v1/key_service_pb.js";
import { functions } from "./functions.ts";
import { accepts, batches, deadLetters, invokes, largeBodies, logs, stops, streams } from "./invocations.ts";
import type { Suite } from "./suite.ts";
import { certificates, compression, ownCA, sizes } from "./transport.ts";
import { resumes, wrongToken } from "./watch.ts";

export const cases: Record<string, (suite: Suite) => Promise<void>> = {
  functions,
  invoke: invokes,
  "invoke-stream": streams,
  "invoke-async": accepts,
  batch: batches,
  "stop-and-rerun": stops,
  "large-bodies": largeBodies,
  logs,
  "dead-letters": deadLetters,
  secrets,
  "signing-keys": signingKeys,
  "api-keys": apiKeys,
  "error-info": errorInfo,
  "bad-request": badRequest,
  "retry-info": retryInfo,
  deadline: deadlines,
  wait: waits,
  cancel: cancels,
  keys,
  scopes,
  tls: ownCA,
  mtls: certificates,
  compression,
  "message-sizes": sizes,
  "wrong-token": wrongToken,
  // All clients come here before the server is killed.
  "watch-resume": resumes,
};

/** Deploys a program as a function. */
export async function deploy(suite: Suite, name: string, ...args: string[]): Promise<Function> {
  const deployed = await suite.root.functions.deployFunction({
    function: { name: suite.named(name), source: { case: "command", value: { args } } },
  });
  return deployed.function!;
}

/** Returns the id of an invocation that was accepted. */
export async function invokeAsync(suite: Suite, name: string, body: string): Promise<string> {
  return (await suite.root.invocations.invokeAsync({ spec: spec(suite, name, body) })).invocation!.id;
}

/** Waits for the end of an invocation. */
export async function ended(suite: Suite, id: string, state: InvocationState): Promise<Invocation> {
  const { invocation } = await suite.root.invocations.waitInvocation({ id });
  equal(invocation!.state, state, "the state");
  return invocation!;
}

export async function createKey(suite: Suite, key: MessageInitShape<typeof KeySchema>): Promise<string> {
  return (await suite.root.keys.createKey({ key })).secret;
}

export function spec(suite: Suite, name: string, body: string): InvocationSpec {
  const payload = { contentType: "text/plain", body: { case: "data" as const, value: Buffer.from(body) } };
  return create(InvocationSpecSchema, { function: suite.named(name), payload });
}

/** Selects the invocations of a function. */
export function only(suite: Suite, name: string): MessageInitShape<typeof InvocationFilterSchema> {
  return { functions: [suite.named(name)] };
}

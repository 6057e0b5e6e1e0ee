import { Code } from "@connectrpc/connect";
import { createKey, deploy, spec } from "./cases.ts";
import { equal, next, refused } from "./check.ts";
import { Scope } from "./gen/es/homing/v1/key_service_pb.js";
import type { Suite } from "./suite.ts";

/** Keys are wanted, and have to be good ones. */
export async function keys(suite: Suite): Promise<void> {
  const anonymous = suite.connect(suite.config.target, {});
  await refused(anonymous.functions.listFunctions({}), Code.Unauthenticated, "KEY_MISSING");
  anonymous.close();

  const wrong = suite.connect(suite.config.target, { key: `${suite.config.root_key}x` });
  await refused(wrong.functions.listFunctions({}), Code.Unauthenticated, "KEY_INVALID");
  const watch = wrong.invocations.watchResults({})[Symbol.asyncIterator]();
  await refused(next(watch), Code.Unauthenticated, "KEY_INVALID");
  wrong.close();
}

/** Scopes allow what they say and nothing else, for the functions of the key. */
export async function scopes(suite: Suite): Promise<void> {
  await deploy(suite, "mine", "cat");
  await deploy(suite, "theirs", "cat");
  const key = await createKey(suite, {
    name: suite.named("limited"),
    scopes: [Scope.INVOKE],
    functions: [suite.named("mine")],
  });
  const client = suite.connect(suite.config.target, { key });
  await client.invocations.invoke({ spec: spec(suite, "mine", "hello") });

  const call = client.invocations.invoke({ spec: spec(suite, "theirs", "hello") });
  const not = await refused(call, Code.PermissionDenied, "FUNCTION_NOT_ALLOWED");
  equal(not.metadata["function"], suite.named("theirs"), "the function");
  const missing = await refused(client.functions.listFunctions({}), Code.PermissionDenied, "SCOPE_MISSING");
  equal(missing.metadata["scope"], "read", "the scope");
  client.close();
}

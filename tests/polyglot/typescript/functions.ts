import { Code } from "@connectrpc/connect";
import { deploy, ended, spec } from "./cases.ts";
import { check, equal, refused } from "./check.ts";
import { InvocationState, WaitReason } from "./gen/es/homing/v1/invocation_pb.js";
import type { Suite } from "./suite.ts";

/** Functions are deployed, changed, listed, paused and deleted. */
export async function functions(suite: Suite): Promise<void> {
  const { functions, invocations } = suite.root;
  const deployed = await deploy(suite, "plain", "cat");
  equal(deployed.revision, 1n, "the revision");
  const { name, revision } = deployed;
  const labels = { team: "polyglot" };
  const change = { function: { name, labels }, updateMask: { paths: ["labels"] }, expectedRevision: revision };
  const changed = (await functions.deployFunction(change)).function!;
  check(changed.source.case === "command", "it is no command any more");
  equal(changed.source.value.args.join(), "cat", "the arguments");
  equal(changed.labels["team"], "polyglot", "the label");
  await refused(functions.deployFunction(change), Code.Aborted, "REVISION_MISMATCH");

  equal((await functions.getFunction({ name })).function!.revision, changed.revision, "the revision");
  await deploy(suite, "another", "cat");
  const names = new Set<string>();
  let pageToken = "";
  do {
    const page = await functions.listFunctions({ pageSize: 1, pageToken });
    equal(page.functions.length, 1, "the size of a page");
    names.add(page.functions[0].name);
    pageToken = page.nextPageToken;
  } while (pageToken);
  check(names.has(name) && names.has(suite.named("another")), `they are not among ${[...names].join()}`);

  check((await functions.pauseFunction({ name })).function!.paused, "it is not paused");
  const waiting = (await invocations.invokeAsync({ spec: spec(suite, "plain", "") })).invocation!;
  equal(waiting.waitReason, WaitReason.PAUSED, "why it waits");
  check(!(await functions.resumeFunction({ name })).function!.paused, "it is paused");
  equal((await functions.scaleFunction({ name, maxInstances: 2 })).function!.maxInstances, 2, "the most instances");
  await ended(suite, waiting.id, InvocationState.SUCCEEDED);

  await functions.deleteFunction({ name });
  await refused(functions.getFunction({ name }), Code.NotFound, "FUNCTION_NOT_FOUND");
}

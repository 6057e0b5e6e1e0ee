import { Code } from "@connectrpc/connect";
import { deploy } from "./cases.ts";
import { check, equal, refused } from "./check.ts";
import { Scope } from "./gen/es/homing/v1/key_service_pb.js";
import type { Suite } from "./suite.ts";

/** Secrets are made, changed, listed and deleted, and never shown. */
export async function secrets(suite: Suite): Promise<void> {
  const { secrets } = suite.root;
  const name = suite.named("token");
  const [first, other] = ["first value", "other value"].map((value) => Buffer.from(value));
  equal((await secrets.createSecret({ name, value: first })).secret!.version, 1n, "the version");
  await refused(secrets.createSecret({ name, value: other }), Code.AlreadyExists, "SECRET_EXISTS");
  equal((await secrets.updateSecret({ name, value: other })).secret!.version, 2n, "the version");
  const listed = (await secrets.listSecrets({ pageSize: 1000 })).secrets;
  check(
    listed.some((secret) => secret.name === name),
    "it is not listed",
  );
  await secrets.deleteSecret({ name });
  await refused(secrets.deleteSecret({ name }), Code.NotFound, "SECRET_NOT_FOUND");
}

/** Signing keys are rotated, once for each request id, listed and revoked. */
export async function signingKeys(suite: Suite): Promise<void> {
  const { signingKeys } = suite.root;
  const { name } = await deploy(suite, "signed", "cat");
  const request = { function: name, requestId: suite.named("rotate") };
  const made = await signingKeys.rotateSigningKey(request);
  check(made.key.startsWith("whsec_"), "the key is none");
  const repeated = await signingKeys.rotateSigningKey(request);
  check(repeated.duplicate && repeated.key === made.key, "the same request id made another key");
  const listed = (await signingKeys.listSigningKeys({ function: name })).signingKeys;
  equal(listed.map(({ id }) => id).join(), made.signingKey!.id, "the ids");
  const { id } = made.signingKey!;
  await signingKeys.revokeSigningKey({ id });
  await refused(signingKeys.revokeSigningKey({ id }), Code.NotFound, "SIGNING_KEY_NOT_FOUND");
}

/** API keys are made, once for each request id, listed, and good until they are revoked. */
export async function apiKeys(suite: Suite): Promise<void> {
  const { keys } = suite.root;
  const request = { key: { name: suite.named("reader"), scopes: [Scope.READ] }, requestId: suite.named("reader") };
  const made = await keys.createKey(request);
  const repeated = await keys.createKey(request);
  check(repeated.duplicate && repeated.secret === made.secret, "the same request id made another key");
  const { id } = made.key!;
  const listed = (await keys.listKeys({ pageSize: 1000 })).keys;
  check(
    listed.some((key) => key.id === id),
    "it is not listed",
  );

  const reader = suite.connect(suite.config.target, { key: made.secret });
  await reader.functions.listFunctions({});
  await keys.revokeKey({ key: id });
  await refused(reader.functions.listFunctions({}), Code.Unauthenticated, "KEY_INVALID");
  reader.close();
}

// First calls with homing from TypeScript, with grpc-js and the .proto files as they are: now, later, and watching.
import * as grpc from "@grpc/grpc-js";
import { loadSync, type MessageTypeDefinition } from "@grpc/proto-loader";
import { setTimeout as sleep } from "node:timers/promises";
import type { ProtoGrpcType as Functions } from "../gen/loader/function_service.ts";
import type { ErrorInfo__Output } from "../gen/loader/google/rpc/ErrorInfo.ts";
import type { RetryInfo__Output } from "../gen/loader/google/rpc/RetryInfo.ts";
import type { Status__Output } from "../gen/loader/google/rpc/Status.ts";
import type { DeployFunctionResponse__Output } from "../gen/loader/homing/v1/DeployFunctionResponse.ts";
import type { InvokeAsyncResponse__Output } from "../gen/loader/homing/v1/InvokeAsyncResponse.ts";
import type { InvokeResponse__Output } from "../gen/loader/homing/v1/InvokeResponse.ts";
import type { WaitInvocationResponse__Output } from "../gen/loader/homing/v1/WaitInvocationResponse.ts";
import type { WatchResultsResponse__Output } from "../gen/loader/homing/v1/WatchResultsResponse.ts";
import type { ProtoGrpcType as Invocations } from "../gen/loader/invocation_service.ts";

const definition = loadSync(
  ["homing/v1/function_service.proto", "homing/v1/invocation_service.proto", "google/rpc/error_details.proto"],
  { includeDirs: ["proto", ".cache/googleapis"], longs: String, enums: String, oneofs: true },
);
const { homing } = grpc.loadPackageDefinition(definition) as unknown as Functions & Invocations;
const options = { "grpc.keepalive_time_ms": 30_000, "grpc.keepalive_timeout_ms": 10_000 };
const credentials = grpc.credentials.createInsecure();
const functions = new homing.v1.FunctionService(process.env.HOMING_TARGET!, credentials, options);
const invocations = new homing.v1.InvocationService(process.env.HOMING_TARGET!, credentials, options);
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${process.env.HOMING_API_KEY}`);

/** Returns a detail of an error; undefined where it has none of that type. */
function detail<T>(error: grpc.ServiceError, type: string): T | undefined {
  const decode = (name: string, bytes: Buffer) => (definition[name] as MessageTypeDefinition<object, object>).deserialize(bytes);
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  const details = bytes ? (decode("google.rpc.Status", bytes as Buffer) as Status__Output).details : undefined;
  const found = details?.find((any) => "type_url" in any && any.type_url?.endsWith(`/${type}`));
  return found && "value" in found ? (decode(type, found.value as Buffer) as T) : undefined;
}

/** Makes a call and returns its answer. */
function ask<T>(call: (options: grpc.CallOptions, answered: grpc.requestCallback<T>) => void, seconds = 30): Promise<T> {
  return new Promise((resolve, reject) => {
    call({ deadline: Date.now() + seconds * 1000 }, (error, answer) => (error ? reject(error) : resolve(answer!)));
  });
}

/** Makes an idempotent call again while that may help. */
async function retried<T>(call: () => Promise<T>, forMs = 60_000): Promise<T> {
  const end = Date.now() + forMs;
  for (let backoff = 200; ; backoff = Math.min(2 * backoff, 5_000)) {
    try {
      return await call();
    } catch (error) {
      const delay = retryDelay(error as grpc.ServiceError, backoff);
      if (delay === undefined || Date.now() + delay > end) {
        throw error;
      }
      await sleep(delay);
    }
  }
}

/** Returns when a call may be made again: where the server could not be reached, or said when. */
function retryDelay(error: grpc.ServiceError, backoff: number): number | undefined {
  const info = detail<RetryInfo__Output>(error, "google.rpc.RetryInfo");
  if (info) {
    return Number(info.retryDelay?.seconds ?? 0) * 1000 + (info.retryDelay?.nanos ?? 0) / 1e6;
  }
  return error.code === grpc.status.UNAVAILABLE ? Math.random() * backoff : undefined;
}

/** Yields what ends, each once, and bookmarks, of which the first says that the watch is in place. */
async function* results(functions: string[]): AsyncGenerator<WatchResultsResponse__Output> {
  let resumeToken = "";
  for (;;) {
    const stream = invocations.watchResults({ filter: { functions }, resumeToken }, metadata);
    try {
      for await (const message of stream as AsyncIterable<WatchResultsResponse__Output>) {
        yield message;
        resumeToken = message.resumeToken ?? "";
      }
    } catch (caught) {
      const error = caught as grpc.ServiceError;
      const slow = detail<ErrorInfo__Output>(error, "google.rpc.ErrorInfo")?.reason === "SLOW_CONSUMER";
      const delay = retryDelay(error, 1000) ?? (slow ? 100 : undefined);
      if (delay === undefined) {
        throw error;
      }
      await sleep(delay);
    } finally {
      stream.cancel();
    }
  }
}

const shout = { name: "shout", command: { args: ["tr", "a-z", "A-Z"] } };
await ask<DeployFunctionResponse__Output>((options, answered) =>
  functions.deployFunction({ function: shout }, metadata, options, answered),
);
const spec = { function: "shout", payload: { data: Buffer.from("later is better") } };
const now = await ask<InvokeResponse__Output>((options, answered) =>
  invocations.invoke({ spec }, metadata, options, answered),
);
console.log(now.invocation?.result?.payload?.data?.toString());

const accept = () =>
  ask<InvokeAsyncResponse__Output>((options, answered) =>
    invocations.invokeAsync({ spec, requestId: "order-7" }, metadata, options, answered),
  );
const later = await retried(accept);
const ended = await ask<WaitInvocationResponse__Output>((options, answered) =>
  invocations.waitInvocation({ id: later.invocation?.id }, metadata, options, answered),
);
console.log(ended.invocation?.state);

try {
  await ask<InvokeResponse__Output>((options, answered) =>
    invocations.invoke({ spec: { function: "No such" } }, metadata, options, answered),
  );
} catch (caught) {
  const error = caught as grpc.ServiceError;
  console.log(grpc.status[error.code], detail<ErrorInfo__Output>(error, "google.rpc.ErrorInfo")?.reason);
}

let asked = false;
for await (const { invocation } of results(["shout"])) {
  if (!asked) {
    asked = true;
    await retried(() => ask<InvokeAsyncResponse__Output>((options, answered) =>
      invocations.invokeAsync({ spec }, metadata, options, answered),
    ));
  }
  if (invocation) {
    console.log("watched", invocation.state);
    break;
  }
}
functions.close();
invocations.close();

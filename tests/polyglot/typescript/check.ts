import { Code, ConnectError } from "@connectrpc/connect";
import { type ErrorInfo, ErrorInfoSchema } from "./gen/es/google/rpc/error_details_pb.js";
import type { Payload } from "./gen/es/homing/v1/payload_pb.js";

/** Ends a case that does not hold. */
export function check(holds: boolean, message: string): asserts holds {
  if (!holds) {
    throw new Error(message);
  }
}

export function equal<T>(got: T, want: T, what: string): void {
  check(got === want, `${what} is ${String(got)}, not ${String(want)}`);
}

/** Returns the error of a call that is to fail with this code. */
export async function failed(call: Promise<unknown>, ...codes: Code[]): Promise<ConnectError> {
  try {
    await call;
  } catch (error) {
    check(error instanceof ConnectError, `it failed with ${String(error)}`);
    check(codes.includes(error.code), `it failed with ${error.message}, not ${codes.map((code) => Code[code]).join()}`);
    return error;
  }
  throw new Error("it did not fail");
}

/** Checks the code of an error, and the reason that its google.rpc.ErrorInfo has, which is returned. */
export function explained(error: ConnectError, reason: string): ErrorInfo {
  const [info] = error.findDetails(ErrorInfoSchema);
  check(info !== undefined, `${error.message} has no ErrorInfo`);
  equal(info.reason, reason, "the reason");
  equal(info.domain, "homing.dev", "the domain");
  return info;
}

export async function refused(call: Promise<unknown>, code: Code, reason: string): Promise<ErrorInfo> {
  return explained(await failed(call, code), reason);
}

/** Returns the body of what has one, inline. */
export function text(message: { payload?: Payload } | undefined): string {
  const body = message?.payload?.body;
  check(body?.case === "data", "there is no body");
  return Buffer.from(body.value).toString();
}

/** Returns the next message of a stream. */
export async function next<T>(messages: AsyncIterator<T>): Promise<T> {
  const { done, value } = await messages.next();
  check(!done, "the stream ended");
  return value;
}

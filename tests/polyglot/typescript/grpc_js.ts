import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { Code, ConnectError, type StreamResponse, type Transport, type UnaryResponse } from "@connectrpc/connect";
import * as grpc from "@grpc/grpc-js";
import { loadSync, type MethodDefinition } from "@grpc/proto-loader";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { StatusSchema } from "./gen/es/google/rpc/status_pb.js";
import type { Connection, Options } from "./suite.ts";

const ROOT = join(import.meta.dirname, "../../..");
const PROTO = join(ROOT, "proto");
const SERVICES = readdirSync(join(PROTO, "homing/v1")).filter((name) => name.endsWith("_service.proto"));
const LOADED = loadSync(
  SERVICES.map((name) => `homing/v1/${name}`),
  { includeDirs: [PROTO, join(ROOT, ".cache/googleapis")], longs: String, enums: String, defaults: true, oneofs: true },
);

type Plain = MethodDefinition<object, object>;

/** Connects with @grpc/grpc-js, whose messages are the plain objects of @grpc/proto-loader. */
export function connect(target: string, options: Options): Connection {
  const { tls, key } = options;
  const file = (path: string | undefined) => (path ? readFileSync(path) : null);
  const credentials = tls
    ? grpc.credentials.createSsl(file(tls.ca), file(tls.key), file(tls.cert))
    : grpc.credentials.createInsecure();
  const client = new grpc.Client(target, credentials, {
    ...(options.pingSeconds && {
      "grpc.keepalive_time_ms": options.pingSeconds * 1000,
      "grpc.keepalive_permit_without_calls": 1,
    }),
    ...(options.gzip && { "grpc.default_compression_algorithm": grpc.compressionAlgorithms.gzip }),
  });
  return { transport: new GrpcJs(client, key), close: () => client.close() };
}

/** Carries what the cases say, in the messages and errors of Connect, by way of grpc-js. */
class GrpcJs implements Transport {
  readonly #client: grpc.Client;
  readonly #key: string | undefined;

  constructor(client: grpc.Client, key: string | undefined) {
    this.#client = client;
    this.#key = key;
  }

  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { input: I; output: O },
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    _header: HeadersInit | undefined,
    input: MessageInitShape<I>,
  ): Promise<UnaryResponse<I, O>> {
    const plain = definition(method);
    return new Promise((resolve, reject) => {
      const header = new Headers();
      const call = this.#client.makeUnaryRequest(
        plain.path,
        plain.requestSerialize,
        plain.responseDeserialize,
        toPlain(method, input),
        this.#metadata(),
        deadline(timeoutMs),
        (error, answer) => {
          if (error) {
            reject(connectError(error, header));
          } else {
            const message = fromPlain(method, answer!);
            resolve({ stream: false, service: method.parent, method, header, trailer: new Headers(), message } as never);
          }
        },
      );
      call.on("metadata", (metadata) => copy(metadata, header));
      signal?.addEventListener("abort", () => call.cancel());
    });
  }

  async stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { input: I; output: O },
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    _header: HeadersInit | undefined,
    input: AsyncIterable<MessageInitShape<I>>,
  ): Promise<StreamResponse<I, O>> {
    const answers =
      method.methodKind === "client_streaming"
        ? this.#upload(method, timeoutMs, input)
        : this.#download(method, signal, timeoutMs, input);
    const [header, trailer] = [new Headers(), new Headers()];
    return { stream: true, service: method.parent, method, header, trailer, message: answers } as never;
  }

  async *#upload<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { input: I; output: O },
    timeoutMs: number | undefined,
    input: AsyncIterable<MessageInitShape<I>>,
  ): AsyncGenerator<MessageShape<O>> {
    const plain = definition(method);
    let answered: (error: grpc.ServiceError | null, answer?: object) => void;
    const answer = new Promise<object>((resolve, reject) => {
      answered = (error, value) => (error ? reject(connectError(error)) : resolve(value!));
    });
    const call = this.#client.makeClientStreamRequest(
      plain.path,
      plain.requestSerialize,
      plain.responseDeserialize,
      this.#metadata(),
      deadline(timeoutMs),
      answered!,
    );
    for await (const each of input) {
      await new Promise((resolve) => call.write(toPlain(method, each), resolve));
    }
    call.end();
    yield fromPlain(method, await answer);
  }

  async *#download<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { input: I; output: O },
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    input: AsyncIterable<MessageInitShape<I>>,
  ): AsyncGenerator<MessageShape<O>> {
    const plain = definition(method);
    for await (const each of input) {
      const call = this.#client.makeServerStreamRequest(
        plain.path,
        plain.requestSerialize,
        plain.responseDeserialize,
        toPlain(method, each),
        this.#metadata(),
        deadline(timeoutMs),
      );
      signal?.addEventListener("abort", () => call.cancel());
      try {
        for await (const answer of call) {
          yield fromPlain(method, answer as object);
        }
      } catch (error) {
        throw connectError(error as grpc.ServiceError);
      }
    }
  }

  #metadata(): grpc.Metadata {
    const metadata = new grpc.Metadata();
    if (this.#key) {
      metadata.set("authorization", `Bearer ${this.#key}`);
    }
    return metadata;
  }
}

function definition(method: DescMethod): Plain {
  const service = LOADED[method.parent.typeName] as Record<string, unknown>;
  return service[method.name] as Plain;
}

function toPlain<I extends DescMessage>(method: DescMethod & { input: I }, message: MessageInitShape<I>): object {
  return definition(method).requestDeserialize(Buffer.from(toBinary(method.input, create(method.input, message))));
}

function fromPlain<O extends DescMessage>(method: DescMethod & { output: O }, message: object): MessageShape<O> {
  return fromBinary(method.output, definition(method).responseSerialize(message));
}

function deadline(timeoutMs: number | undefined): grpc.CallOptions {
  return timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs };
}

function connectError(error: grpc.ServiceError, header = new Headers()): ConnectError {
  const metadata = copy(error.metadata, new Headers(header));
  const made = new ConnectError(error.details, error.code as number as Code, metadata);
  const [status] = error.metadata.get("grpc-status-details-bin");
  if (status instanceof Buffer) {
    const { details } = fromBinary(StatusSchema, status);
    made.details = details.map(({ typeUrl, value }) => ({ type: typeUrl.split("/").at(-1)!, value }));
  }
  return made;
}

function copy(metadata: grpc.Metadata, headers: Headers): Headers {
  for (const [name, value] of Object.entries(metadata.getMap())) {
    if (typeof value === "string") {
      headers.set(name, value);
    }
  }
  return headers;
}

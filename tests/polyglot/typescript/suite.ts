import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { createInterface } from "node:readline";
import { DeadLetterService } from "./gen/es/homing/v1/dead_letter_service_pb.js";
import { FunctionService } from "./gen/es/homing/v1/function_service_pb.js";
import { InvocationService } from "./gen/es/homing/v1/invocation_service_pb.js";
import { KeyService } from "./gen/es/homing/v1/key_service_pb.js";
import { LogService } from "./gen/es/homing/v1/log_service_pb.js";
import { PayloadService } from "./gen/es/homing/v1/payload_service_pb.js";
import { SecretService } from "./gen/es/homing/v1/secret_service_pb.js";
import { SigningKeyService } from "./gen/es/homing/v1/signing_key_service_pb.js";

/** Where the servers are, and what opens them. */
export interface Config {
  target: string;
  root_key: string;
  tls: Doors;
  mtls: Doors;
}

/** A server that speaks TLS, and the files for it. */
export interface Doors {
  target: string;
  ca: string;
  cert: string;
  key: string;
  stranger_ca: string;
  stranger_cert: string;
  stranger_key: string;
}

/** How to connect. */
export interface Options {
  key?: string;
  tls?: { ca: string; cert?: string; key?: string };
  pingSeconds?: number;
  gzip?: boolean;
}

export interface Connection {
  transport: Transport;
  close(): void;
}

/** Connects with one of the libraries. */
export type Connect = (target: string, options: Options) => Connection;

/** All services of a server. */
export interface Homing {
  deadLetters: Client<typeof DeadLetterService>;
  functions: Client<typeof FunctionService>;
  invocations: Client<typeof InvocationService>;
  keys: Client<typeof KeyService>;
  logs: Client<typeof LogService>;
  payloads: Client<typeof PayloadService>;
  secrets: Client<typeof SecretService>;
  signingKeys: Client<typeof SigningKeyService>;
  close(): void;
}

const DEADLINE = 60_000;

/** Runs cases one after the other. */
export class Suite {
  readonly name: string;
  readonly config: Config;
  readonly root: Homing;
  readonly #connect: Connect;
  readonly #called = new Set<string>();
  readonly #answers = createInterface(process.stdin)[Symbol.asyncIterator]();

  constructor(name: string, config: Config, connect: Connect) {
    this.name = name;
    this.config = config;
    this.#connect = connect;
    this.root = this.connect(config.target, { key: config.root_key });
  }

  /** Reports what comes of a case, which throws where something does not hold. */
  async run(name: string, run: (suite: Suite) => Promise<void>): Promise<void> {
    const start = performance.now();
    let error: unknown;
    try {
      await run(this);
    } catch (caught) {
      error = caught;
    }
    const seconds = (performance.now() - start) / 1000;
    const told = error instanceof Error ? (error.stack ?? String(error)) : String(error);
    print({ case: name, ok: error === undefined, seconds, error: told });
  }

  /** Has the test do something with the server, and waits until it is done. */
  async ask(what: string): Promise<void> {
    print({ ask: what });
    await this.#answers.next();
  }

  /** Returns a name that no other client of the same servers has. */
  named(name: string): string {
    return `${this.name}-${name}`;
  }

  connect(target: string, options: Options): Homing {
    const { transport, close } = this.#connect(target, options);
    const noting = this.#noting(transport);
    return {
      deadLetters: createClient(DeadLetterService, noting),
      functions: createClient(FunctionService, noting),
      invocations: createClient(InvocationService, noting),
      keys: createClient(KeyService, noting),
      logs: createClient(LogService, noting),
      payloads: createClient(PayloadService, noting),
      secrets: createClient(SecretService, noting),
      signingKeys: createClient(SigningKeyService, noting),
      close,
    };
  }

  /** Notes what is answered, and gives calls a deadline that have none. */
  #noting(transport: Transport): Transport {
    const note = (method: { parent: { typeName: string }; name: string }) => {
      const name = `${method.parent.typeName}/${method.name}`;
      if (!this.#called.has(name)) {
        this.#called.add(name);
        print({ rpc: name });
      }
    };
    return {
      async unary(method, signal, timeoutMs, header, input, contextValues) {
        const response = await transport.unary(method, signal, timeoutMs ?? DEADLINE, header, input, contextValues);
        note(method);
        return response;
      },
      async stream(method, signal, timeoutMs, header, input, contextValues) {
        const response = await transport.stream(method, signal, timeoutMs ?? DEADLINE, header, input, contextValues);
        async function* messages() {
          for await (const message of response.message) {
            note(method);
            yield message;
          }
        }
        return { ...response, message: messages() };
      },
    };
  }
}

function print(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

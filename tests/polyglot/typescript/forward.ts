import { connect, createServer, type AddressInfo, type Socket } from "node:net";

/** Passes connections on to a target, and counts what passes. */
export class Forward {
  connections = 0;
  sent = 0;
  received = 0;
  #sockets = new Set<Socket>();
  #server = createServer((client) => this.#pass(client));
  #target: string;

  private constructor(target: string) {
    this.#target = target;
  }

  static async to(target: string): Promise<Forward> {
    const forward = new Forward(target);
    await new Promise<void>((resolve) => forward.#server.listen(0, "127.0.0.1", resolve));
    return forward;
  }

  get target(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.#server.close();
    this.#sockets.forEach((socket) => socket.destroy());
  }

  #pass(client: Socket): void {
    this.connections += 1;
    const [host, port] = this.#target.split(":");
    const server = connect(Number(port), host);
    client.on("data", (data) => (this.sent += data.length));
    server.on("data", (data) => (this.received += data.length));
    for (const [from, to] of [
      [client, server],
      [server, client],
    ]) {
      this.#sockets.add(from);
      from.pipe(to);
      from.on("error", () => to.destroy());
      from.on("close", () => to.destroy());
    }
  }
}

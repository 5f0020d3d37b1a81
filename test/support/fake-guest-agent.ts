import type { Socket } from 'node:net';
import { scriptedServer } from './scripted-server.ts';
import type { CleanUp } from './temporary.ts';

export interface AgentCommand {
  readonly execute: string;
  readonly arguments: Readonly<Record<string, unknown>>;
}

/** What a scripted agent does with a command: bytes to send, or `silence`, or undefined for the usual answer. */
export type AgentScript = (
  command: AgentCommand,
  agent: FakeGuestAgent,
) => string | 'silence' | undefined | Promise<string | 'silence' | undefined>;

/**
 * A guest agent on a real socket that keeps a freeze state, answers one command after the other like the real
 * one, and does what its script says instead where the script says something.
 */
export class FakeGuestAgent {
  readonly path: string;
  /** Every command that came, in order. */
  readonly commands: string[] = [];
  frozen = false;
  fileSystems = 2;
  /** Connections served so far. */
  clients = 0;
  readonly #watchers = new Set<() => void>();

  private constructor(path: string) {
    this.path = path;
  }

  static async start(t: CleanUp, script: AgentScript = () => undefined): Promise<FakeGuestAgent> {
    let agent: FakeGuestAgent | undefined;
    const { path } = await scriptedServer(t, (socket) => agent!.#serve(socket, script));
    agent = new FakeGuestAgent(path);
    return agent;
  }

  /** Resolves as soon as `holds` is true; looked at after each command. */
  until(holds: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const look = () => {
        if (!holds()) return;
        this.#watchers.delete(look);
        resolve();
      };
      this.#watchers.add(look);
      look();
    });
  }

  #serve(socket: Socket, script: AgentScript): void {
    this.clients++;
    let text = '';
    let last: Promise<void> = Promise.resolve();
    socket.setEncoding('latin1');
    socket.on('data', (chunk: string) => {
      text += chunk;
      const lines = text.split('\n');
      text = lines.pop()!;
      for (const line of lines) {
        const said = JSON.parse(line.slice(line.lastIndexOf('\xff') + 1)) as Partial<AgentCommand>;
        const command = { execute: String(said.execute), arguments: said.arguments ?? {} };
        last = last.then(() => this.#answer(socket, command, script));
      }
    });
  }

  async #answer(socket: Socket, command: AgentCommand, script: AgentScript): Promise<void> {
    this.commands.push(command.execute);
    const scripted = await script(command, this);
    if (scripted !== 'silence') socket.write(scripted ?? this.#usual(command), 'latin1');
    for (const look of [...this.#watchers]) look();
  }

  #usual(command: AgentCommand): string {
    switch (command.execute) {
      case 'guest-sync-delimited':
        return `\xff${reply(command.arguments.id)}`;
      case 'guest-ping':
        return reply({});
      case 'guest-fsfreeze-status':
        return reply(this.frozen ? 'frozen' : 'thawed');
      case 'guest-fsfreeze-freeze':
        this.frozen = true;
        return reply(this.fileSystems);
      case 'guest-fsfreeze-thaw': {
        const count = this.frozen ? this.fileSystems : 0;
        this.frozen = false;
        return reply(count);
      }
      default:
        return errorReply('CommandNotFound', `The command ${command.execute} has not been found`);
    }
  }
}

export function reply(value: unknown): string {
  return `${JSON.stringify({ return: value })}\n`;
}

export function errorReply(errorClass: string, desc: string): string {
  return `${JSON.stringify({ error: { class: errorClass, desc } })}\n`;
}

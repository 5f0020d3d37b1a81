/** Plans in the repository of their owner: one plan in each form, checked by a compiler, a pipeline and a unit test, without a site. */
import assert from 'node:assert/strict';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { readPlan } from '../../../src/cli/plan-file.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { type CommandResult, runCommand } from '../../../src/lib/processes.ts';
import { planDigest } from '../../../src/plan/index.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');
/** What a person would set who writes plans and compiles nothing. */
const COMPILED_AS = ['--noEmit', '--strict', '--module', 'nodenext', '--allowImportingTsExtensions'];

interface OwnRepository {
  readonly directory: string;
  readonly yaml: string;
  /** Of `shop.plan.ts`. */
  readonly text: string;
}

/** A package of somebody who has this one linked into it, with the files that docs/plans.md shows. */
async function ownRepository(t: TestContext): Promise<OwnRepository> {
  const directory = await temporaryDirectory(t);
  const manual = await readFile(join(ROOT, 'docs', 'plans.md'), 'utf8');
  const shown = (language: string) =>
    [...manual.matchAll(new RegExp(`^\`\`\`${language}\n([^]*?)^\`\`\`$`, 'gm'))].map(([, text]) => text!);
  const [yaml] = shown('yaml');
  const [plan, test] = shown('ts');
  await mkdir(join(directory, 'node_modules'));
  await symlink(ROOT, join(directory, 'node_modules', 'warmsite'));
  await symlink(join(ROOT, 'node_modules', '@types'), join(directory, 'node_modules', '@types'));
  const files = {
    'package.json': '{"type":"module"}',
    'shop.yaml': yaml!,
    'shop.plan.ts': plan!,
    'shop.test.ts': test!,
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text);
  return { directory, yaml: yaml!, text: plan! };
}

function compile(directory: string, files: readonly string[]): Promise<CommandResult> {
  const compiler = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  return runCommand(process.execPath, [compiler, ...COMPILED_AS, '--types', 'node', ...files], {
    ...{ cwd: directory, allowExit: [1, 2] },
  });
}

function warmsite(directory: string, ...args: readonly string[]): Promise<CommandResult> {
  const program = join(ROOT, 'bin', 'warmsite.mjs');
  return runCommand(process.execPath, [program, ...args], { cwd: directory, allowExit: [1, 2, 3] });
}

describe('a plan in the repository of its owner', () => {
  it('F5 is the same plan as TypeScript, JavaScript, JSON and YAML, by its digest', async (t) => {
    const { directory, text } = await ownRepository(t);
    const shop = await readPlan(nodeFiles, join(directory, 'shop.plan.ts'));
    assert.equal(shop.machines.web!.gates![0]!.kind, 'tcp');
    await writeFile(join(directory, 'shop.json'), JSON.stringify(shop));
    const plain = text
      .replace(/^import type .*$/m, '')
      .replace(' as const', '')
      .replace(/ satisfies \w+/, '');
    await writeFile(join(directory, 'shop.mjs'), plain);
    for (const name of ['shop.json', 'shop.mjs', 'shop.yaml']) {
      const read = await readPlan(nodeFiles, join(directory, name));
      assert.equal(planDigest(read), planDigest(shop), name);
    }
    await writeFile(join(directory, 'other.json'), JSON.stringify({ ...shop, description: 'other' }));
    assert.notEqual(planDigest(await readPlan(nodeFiles, join(directory, 'other.json'))), planDigest(shop));
    await writeFile(join(directory, 'none.ts'), 'export const plan = {};');
    await assert.rejects(
      readPlan(nodeFiles, join(directory, 'none.ts')),
      (error) => isFailure(error, 'CLI_FILE_INVALID') && error.message.includes('no default export'),
    );
  });

  it('F5 compiles as it stands in the manual, and does not with a slip of the pen', {
    timeout: 60_000,
  }, async (t) => {
    const { directory, text } = await ownRepository(t);
    const slips: Readonly<Record<string, readonly [right: string, wrong: string, says: RegExp]>> = {
      'misspelt.ts': ['tier: 2', 'teir: 2', /'teir' does not exist/],
      'missing.ts': ["plan: 'shop',", '', /Property 'plan' is missing/],
      'other-kind.ts': ["{ kind: 'tcp', host: '10.0.0.5'", "{ kind: 'udp', host: '10.0.0.5'", /"udp"/],
      'half-a-gate.ts': [', port: 5432', '', /Property 'port' is missing/],
      'text.ts': ['port: 443', "port: 'https'", /'string' is not assignable to type 'number'/],
    };
    for (const [name, [right, wrong]] of Object.entries(slips)) {
      assert.ok(text.includes(right), name);
      await writeFile(join(directory, name), text.replace(right, wrong));
    }
    const { stdout } = await compile(directory, ['shop.plan.ts', 'shop.test.ts', ...Object.keys(slips)]);
    const errors = stdout.split(/^(?=\S)/m);
    for (const [name, [, , says]] of Object.entries(slips)) {
      assert.ok(
        errors.some((error) => error.startsWith(name) && says.test(error)),
        `${name}: ${stdout}`,
      );
    }
    const others = errors.filter((error) => !Object.keys(slips).some((name) => error.startsWith(name)));
    assert.deepEqual(others, [], 'what is right compiles');
  });

  it('F5 is checked by a pipeline without a site: exit code 1 for what is wrong with it', {
    timeout: 60_000,
  }, async (t) => {
    const { directory, yaml } = await ownRepository(t);
    const missing = ['--data', join(directory, 'no-site')];
    const sound = await warmsite(directory, ...missing, 'plan', 'check', 'shop.plan.ts', '--offline');
    assert.equal(sound.exitCode, 0, sound.stderr);
    assert.match(sound.stdout, /1\. *db\n.*2\. *app\n.*3\. *cache\n.*4\. *web\nNothing is wrong with it/);
    await writeFile(
      join(directory, 'slow.yaml'),
      yaml.replace('cache: { tier: 3 }', 'cache: { after: [web] }'),
    );
    await writeFile(join(directory, 'host.yaml'), yaml.replace('host: 10.0.0.5', 'host: db.example.org'));
    for (const [name, says] of [
      ['slow.yaml', /wait for each other/],
      ['host.yaml', /a gate of db: «db\.example\.org» is not an IPv4 address/],
    ] as const) {
      const checked = await warmsite(directory, ...missing, '--json', 'plan', 'check', name, '--offline');
      const { findings } = JSON.parse(checked.stdout) as {
        findings: { severity: string; message: string }[];
      };
      assert.deepEqual([checked.exitCode, findings.length], [1, 1], name);
      assert.match(findings[0]!.message, says);
    }
    await writeFile(join(directory, 'none.yaml'), yaml.replace('tier: 2', 'tier: two'));
    const none = await warmsite(directory, ...missing, 'plan', 'check', 'none.yaml', '--offline');
    assert.equal(none.exitCode, 2);
    assert.match(none.stderr, /machines\.app\.tier/);
    const online = await warmsite(directory, ...missing, 'plan', 'check', 'shop.yaml');
    assert.match(online.stderr, /CLI_SITE_MISSING/);
  });

  it('F5 is the subject of a unit test of its owner, as the manual shows it', {
    timeout: 60_000,
  }, async (t) => {
    const { directory, text } = await ownRepository(t);
    // A test that runs tests would tell ours of them.
    const words = [
      '-u',
      'NODE_TEST_CONTEXT',
      process.execPath,
      '--test',
      '--test-reporter=tap',
      'shop.test.ts',
    ];
    const unitTest = () => runCommand('env', words, { cwd: directory, allowExit: [1] });
    const passed = await unitTest();
    assert.equal(passed.exitCode, 0, passed.stdout);
    assert.match(passed.stdout, /pass 1/);
    await writeFile(join(directory, 'shop.plan.ts'), text.replace('cache: { tier: 3 }', 'cache: {}'));
    const failed = await unitTest();
    assert.equal(failed.exitCode, 1);
    assert.match(failed.stdout, /fail 1/);
  });
});

import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errorsDocument, readCatalogues } from './errors-doc.ts';
import { failoverDocument } from './failover-doc.ts';
import { planTypes } from './plan-types.ts';

/** `npm run docs`: writes what documents have from the code; test/tidy.test.ts says when they are out of date. */
const ROOT = dirname(import.meta.dirname);
const DOCS = join(ROOT, 'docs');

await writeFile(join(DOCS, 'errors.md'), errorsDocument(await readCatalogues()));
const failover = join(DOCS, 'failover.md');
await writeFile(failover, failoverDocument(await readFile(failover, 'utf8')));
await writeFile(join(ROOT, 'types', 'plan.d.ts'), planTypes());

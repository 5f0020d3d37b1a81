/** What is signed of a TPM, and that nothing else is taken for it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type SignedStatement, tpmSaid, tpmStateOf } from '../../../src/recovery-point/index.ts';

const STATE = Buffer.from('what a TPM holds').toString('base64');

function signed(change: object): SignedStatement {
  const tpm = tpmSaid({ captured: 'paused', pauseMs: 4, state: STATE });
  const statement = { pointId: 'p', tpm, ...change } as SignedStatement['statement'];
  return { statement, keyId: 'k', signature: 's', tpmState: STATE };
}

test('F8 the state of a TPM is what was signed, or it is refused', () => {
  assert.equal(tpmStateOf(signed({}))?.toString(), 'what a TPM holds');
  const { tpmState: _gone, ...without } = signed({});
  assert.equal(tpmStateOf({ ...without, statement: signed({ tpm: undefined }).statement }), undefined);
  const other = Buffer.from('what a TPM hoards').toString('base64');
  for (const wrong of [{ ...signed({}), tpmState: other }, without, signed({ tpm: undefined })]) {
    assert.throws(() => tpmStateOf(wrong), { code: 'POINT_STATEMENT_INVALID' });
  }
  assert.ok(!JSON.stringify(signed({}).statement).includes(STATE), 'what is signed does not hold it');
});

import assert from 'node:assert/strict';
import test from 'node:test';
import token from '../../nginx_njs/token.js';

const KEYRING = {
    current: 'k2',
    keys: { k1: Buffer.alloc(32, 1).toString('base64url'), k2: Buffer.alloc(32, 2).toString('base64url') },
};
const CLAIMS = { pod: 'pod-a', user: 'alice' };

test('a sealed token opens to its claims, for its use and its pod only', async () => {
    const text = await token.seal(KEYRING, 'cookie', CLAIMS);

    assert.deepEqual(await token.open(KEYRING, 'cookie', 'pod-a', text), { claims: CLAIMS });
    assert.deepEqual(await token.open(KEYRING, 'url', 'pod-a', text), { reason: 'does_not_open' });
    assert.deepEqual(await token.open(KEYRING, 'cookie', 'pod-b', text), { reason: 'does_not_open' });
});

test('every single changed bit of a token is noticed', async () => {
    const text = await token.seal(KEYRING, 'cookie', CLAIMS);
    const bytes = Buffer.from(text);
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
        const changed = Buffer.from(bytes);
        changed[bit >> 3] ^= 1 << (bit & 7);
        const opened = await token.open(KEYRING, 'cookie', 'pod-a', changed.toString('latin1'));
        assert.equal(opened.claims, undefined, `bit ${bit}`);
    }
});

test('every cut of a token is noticed', async () => {
    const text = await token.seal(KEYRING, 'cookie', CLAIMS);
    for (let length = 0; length < text.length; length += 1) {
        assert.equal((await token.open(KEYRING, 'cookie', 'pod-a', text.slice(0, length))).claims, undefined);
    }
});

test('a key must be in the keyring itself and whole', async () => {
    const text = await token.seal(KEYRING, 'cookie', CLAIMS);
    const renamed = (kid) => text.replace('.k2.', `.${kid}.`);
    const short = { current: 'k2', keys: { k2: 'AAAA' } };

    assert.deepEqual(await token.open(KEYRING, 'cookie', 'pod-a', renamed('k1')), { reason: 'does_not_open' });
    assert.deepEqual(await token.open(KEYRING, 'cookie', 'pod-a', renamed('constructor')), { reason: 'unknown_key' });
    assert.deepEqual(await token.open(KEYRING, 'cookie', 'pod-a', renamed('__proto__')), { reason: 'malformed' });
    assert.deepEqual(await token.open(short, 'cookie', 'pod-a', text), { reason: 'unknown_key' });
});

test('what is not a token is malformed', async () => {
    const texts = ['', 'v1', 'v1..', 'v1.k2.', 'v2.k2.AAAA', 'v1.k2.AAAA', 'v1.k2.AAAA.AAAA', `v1.k2.${'A'.repeat(4000)}`, undefined, null, 7, []];
    for (const text of texts) {
        assert.deepEqual(await token.open(KEYRING, 'url', 'pod-a', text), { reason: 'malformed' }, String(text));
    }
});

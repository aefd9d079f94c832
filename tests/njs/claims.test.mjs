import assert from 'node:assert/strict';
import test from 'node:test';
import claims from '../../nginx_njs/claims.js';

const NETWORKS = '127.0.0.1/32,10.1.0.0/16';
const PORTS = '20000-29999';
const NOW = 1_800_000_000;
const GOOD = {
    pod: 'pod-a', user: 'alice', epoch: 3, upstream: '10.1.2.3:20101', secret: 'a'.repeat(64),
    expires_at: NOW + 1, session_id: 's-1', scope: 'owner', issued_at: NOW - 5, reuse: 'any',
};

function problem(change) {
    return claims.problem({ ...GOOD, ...change }, 'pod-a', NOW, NETWORKS, PORTS);
}

test('good claims are good', () => {
    assert.equal(problem({}), '');
    assert.equal(problem({ upstream: '127.0.0.1:20000' }), '');
});

test('an upstream that is not a plain address within the nodes is refused', () => {
    const refused = [
        '169.254.169.254:20101', '127.0.0.2:20101', '10.2.0.1:20101', '8.8.8.8:20101',
        '10.1.2.3:22', '10.1.2.3:19999', '10.1.2.3:30000', '10.1.2.3:65536', '10.1.2.3:020101', '10.1.2.3:', '10.1.2.3',
        'localhost:20101', 'node-1:20101', '0x0a010203:20101', '167838211:20101', '012.1.2.3:20101', '10.1.515:20101',
        '[::1]:20101', '::ffff:10.1.2.3:20101', 'unix:/run/docker.sock', '10.1.2.3:20101/x', '10.1.2.3:20101@evil:80',
        'evil@10.1.2.3:20101', '10.1.2.3:20101#', '10.1.2.3:20101\n', ' 10.1.2.3:20101', '10.1.2.256:20101', '10.1.2.3.:20101',
        '', null, 20101, ['10.1.2.3:20101'], { toString: '10.1.2.3:20101' }, true,
    ];
    for (const upstream of refused) {
        assert.equal(problem({ upstream }) === '', false, JSON.stringify(upstream));
    }
});

test('claims of a wrong type, form or moment are refused', () => {
    const refused = [
        { pod: 'pod-b' }, { pod: ['pod-a'] }, { user: '' }, { user: 7 }, { user: 'u'.repeat(513) },
        { issued_at: -1 }, { issued_at: '3' }, { reuse: 'twice' }, { epoch: -1 }, { epoch: '3' }, { epoch: 1.5 }, { epoch: 2 ** 53 },
        { expires_at: NOW }, { expires_at: 0 }, { expires_at: `${NOW + 9}` }, { expires_at: null }, { expires_at: [NOW + 9] },
        { expires_at: 1e300 }, { secret: 'a'.repeat(63) }, { secret: 'A'.repeat(64) }, { secret: `${'a'.repeat(63)}\n` },
        { secret: ['a'.repeat(64)] }, { session_id: '' }, { session_id: '../x' }, { session_id: 's'.repeat(65) },
        { scope: 'guest' }, { scope: ['owner'] }, { further: 1 },
    ];
    for (const change of refused) {
        assert.equal(problem(change) === '', false, JSON.stringify(change));
    }
    for (const whole of [null, [], 'x', 7, {}, undefined]) {
        assert.equal(claims.problem(whole, 'pod-a', NOW, NETWORKS, PORTS), 'claims');
    }
    for (const name of Object.keys(GOOD)) {
        const less = { ...GOOD };
        delete less[name];
        assert.equal(claims.problem(less, 'pod-a', NOW, NETWORKS, PORTS), 'claims', name);
    }
});

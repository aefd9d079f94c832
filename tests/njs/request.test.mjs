import assert from 'node:assert/strict';
import test from 'node:test';
import request from '../../nginx_njs/request.js';

const SECRET = 'a'.repeat(64);
const OURS = '__Secure-codepods-pod-a';

test('the raw path below the base goes on undecoded', () => {
    const cases = [
        ['/pods/a/', { path: '/', query: '' }],
        ['/pods/a/?folder=/workspaces/x&y=1', { path: '/', query: 'folder=/workspaces/x&y=1' }],
        ['/pods/a/x%2Fy//z/..%2f', { path: '/x%2Fy//z/..%2f', query: '' }],
        ['/pods/a//', { path: '//', query: '' }],
    ];
    for (const [uri, expected] of cases) {
        assert.deepEqual(request.below('/pods/a/', uri), expected, uri);
    }
});

test('a raw path that only reaches the base by decoding or merging is not below it', () => {
    for (const uri of ['/pods/b/../a/x', '//pods/a/', '/pods//a/', '/pods/%61/', '/Pods/a/', '/pods/a', '/pods/ab/', '']) {
        assert.equal(request.below('/pods/a/', uri), null, uri);
    }
});

test('whatever spells tkn leaves the query, the rest stays as it was', () => {
    const cases = [
        ['tkn=x', ''],
        ['folder=/a%20b&tkn=x', '?folder=/a%20b'],
        ['TKN=x&a=1&Tkn&b=%zz', '?a=1&b=%zz'],
        ['%74kn=x&tkns=1', '?tkns=1'],
        ['', ''],
    ];
    for (const [query, expected] of cases) {
        assert.equal(request.withoutToken(query), expected, query);
    }
});

test('the address after redeeming never leads to another host', () => {
    const cases = [
        ['/pods/a/?tkn=x&folder=/w', '/pods/a/?folder=/w'],
        ['//evil.example/?tkn=x', '/evil.example/'],
        ['/\\evil.example/?tkn=x', '/evil.example/'],
        ['/\\/evil.example?tkn=x', '/evil.example'],
        ['/?tkn=x', '/'],
    ];
    for (const [uri, expected] of cases) {
        assert.equal(request.cleanLocation(uri), expected, uri);
    }
});

test('a posted link leads to the first page of its pod, and only from the address of its form', () => {
    const cases = [
        ['/', '/_start/open', '/'],
        ['/pods/a/', '/pods/a/_start/open?folder=/w&tkn=x&b=%2F', '/pods/a/?folder=/w&b=%2F'],
        ['/pods/a/', '/pods/a/_start/open/', null],
        ['/pods/a/', '/pods/a/_start/%6fpen', null],
        ['/pods/a/', '/pods/b/../a/_start/open', null],
        ['/', '//_start/open', null],
    ];
    for (const [base, uri, expected] of cases) {
        assert.equal(request.afterForm(base, uri), expected, uri);
    }
});

test('a form has one field, and is declared as one', () => {
    const form = 'application/x-www-form-urlencoded';
    const cases = [
        [form, 'tkn=v1.k.x', 'v1.k.x'],
        [`${form.toUpperCase()} ; charset=utf-8`, 'tkn=x', 'x'],
        [form, 'tkn=x&a=1', 'x&a=1'],
        [form, 'a=1&tkn=x', ''],
        [form, '', ''],
        [form, undefined, ''],
        [`${form}2`, 'tkn=x', ''],
        ['text/plain', 'tkn=x', ''],
        [undefined, 'tkn=x', ''],
    ];
    for (const [type, body, expected] of cases) {
        assert.equal(request.postedToken(type, body), expected, body);
    }
});

test('the pod gets its session first and the cookies of its applications, nothing of ours or forged', () => {
    const cases = [
        [undefined, []],
        [`${OURS}=v1.k.x`, []],
        [`a=1; ${OURS}=v1.k.x; b="2; c=3`, ['a=1', 'b="2', 'c=3']],
        ['code-server-session=x; Code-Server-Session=y; code-server-session-z=1; _xsrf=2', ['_xsrf=2']],
        ['code-server-session =x;  code-server-session=y ; __host-codepods=1; __HOST-codepods=2', []],
        ['nameless; =valueonly; ok=', ['ok=']],
    ];
    for (const [header, kept] of cases) {
        const expected = [`code-server-session=${SECRET}`, ...kept].join('; ');
        assert.equal(request.podCookie(header, SECRET), expected, header);
    }
});

test('our cookie counts only when there is exactly one', () => {
    const cases = [
        [undefined, ''],
        ['x=1', ''],
        [`${OURS}=t`, 't'],
        [`x=1;${OURS}=t ;y=2`, 't'],
        [`${OURS}=t; ${OURS}=u`, ''],
        [`${OURS.toLowerCase()}=t`, ''],
        [`${OURS}x=t`, ''],
    ];
    for (const [header, expected] of cases) {
        assert.equal(request.cookieValue(header, OURS), expected, header);
    }
});

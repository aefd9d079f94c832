// The handlers that nginx calls. Everything that decides is in claims.js, request.js and token.js.

import fs from 'fs';
import claims from './claims.js';
import request from './request.js';
import token from './token.js';

// How long an open start page may ask. It waits for a restore or for room, and then is loaded anew.
const VISIT_S = 3600;
// How long the way from a pod's host name to an application's may take.
const DOOR_S = 60;
// What a link to a port begins with; the same as in api/port_links.py.
const PORT_LINK = 'l.';

function nowS() {
    return Math.floor(Date.now() / 1000);
}

// Read each time (some microseconds): a rotated or revoked key counts with no reload.
function keyring(r) {
    return JSON.parse(fs.readFileSync(r.variables.gate_keyring));
}

// Written by the control plane. Missing or broken, nobody is let in.
function revoked(r) {
    return JSON.parse(fs.readFileSync(r.variables.gate_revoked));
}

// Resolves to { claims, key } or { reason }.
async function claimsOf(r, use, pod, text) {
    const opened = await token.open(keyring(r), use, pod, text);
    if (opened.reason) {
        return opened;
    }
    const v = r.variables;
    const reason = claims.problem(opened.claims, pod, nowS(), v.gate_networks, v.gate_ports);
    if (reason) {
        return { reason: reason };
    }
    if (claims.isRevoked(opened.claims, revoked(r))) {
        return { reason: 'revoked' };
    }
    return { claims: opened.claims, key: token.keyOf(text) };
}

// Resolves to what the cookie of this pod says: { claims } or { reason }.
async function session(r, pod, base, cookies) {
    const cookie = request.cookieValue(cookies, request.cookieName(base, pod));
    if (cookie === '') {
        return { reason: 'no_cookie' };
    }
    const opened = await claimsOf(r, 'cookie', pod, cookie);
    return ofScope('owner', opened);
}

function ofScope(scope, opened) {
    return opened.reason || opened.claims.scope === scope ? opened : { reason: 'scope' };
}

// Resolves to { claims, key } of a port that is open to others, as the control plane wrote them down; null: it is not.
async function openPort(r, pod, port) {
    let text = '';
    try {
        text = fs.readFileSync(`${r.variables.gate_ports_directory}/${pod}.${port}`).toString();
    } catch (e) {
        return null;
    }
    const opened = await claimsOf(r, 'port', pod, text);
    return opened.reason || !opened.claims.scope.endsWith(`:${port}`) ? null : opened;
}

// Resolves to who may see the application on this port: { claims } or { reason }. By a path, the pod's own cookie
// does; by a host name, one that the pod's door gave; then what its user has opened to others.
async function visitor(r, pod, base, port, cookies) {
    const owner = base === '/' ? { reason: 'no_cookie' } : await session(r, pod, base, cookies);
    if (!owner.reason) {
        return owner;
    }
    const cookie = request.cookieValue(cookies, request.portCookieName(base, pod, port));
    const opened = cookie === '' ? { reason: 'no_cookie' } : await claimsOf(r, 'cookie', pod, cookie);
    const own = ofScope(`port:${port}`, opened);
    if (!own.reason) {
        return own;
    }
    const open = await openPort(r, pod, port);
    if (open === null || !claims.isOpenTo(open.claims, opened.claims)) {
        return own;
    }
    return { claims: open.claims, key: open.key, passing: true };
}

// Resolves to '' once the answer's headers are set, otherwise to the reason for refusing.
async function admit(r) {
    const asked = r.headersIn;
    const cookies = asked['Cookie'];
    const pod = asked['X-Gate-Pod'];
    const base = asked['X-Gate-Base'];
    const port = asked['X-Gate-Port'];
    const opened = await (port ? visitor(r, pod, base, port, cookies) : session(r, pod, base, cookies));
    if (opened.reason) {
        return opened.reason;
    }
    const found = opened.claims;
    const headers = r.headersOut;
    headers['X-Gate-Cookie'] = request.podCookie(cookies, found.secret);
    // Somebody who only looks at an application is not there as its user is.
    headers['X-Gate-Session'] = opened.passing ? '' : found.session_id;
    // By what the socket is known when something is revoked.
    headers['X-Gate-Visit'] = `${opened.key} ${found.issued_at} ${encodeURIComponent(found.user)}`;
    headers['X-Gate-Upstream'] = found.upstream;
    // The last second at which nginx may answer this by itself.
    headers['X-Accel-Expires'] = `@${Math.min(found.expires_at, nowS() + Number(r.variables.gate_kept_s)) - 1}`;
    return '';
}

// js_content of the gate's own server: 204 lets in, whatever else goes wrong does not.
async function check(r) {
    let reason = 'error';
    try {
        reason = await admit(r);
    } catch (e) {
        r.error(`gate: ${e}`);
    }
    if (reason === '') {
        r.return(204);
    } else {
        r.headersOut['X-Gate-Refusal'] = reason;
        r.return(403);
    }
}

async function cookieFor(r, opened) {
    const v = r.variables;
    const lifetimeS = Number(v.gate_session_s);
    const session = Object.assign({}, opened, { expires_at: nowS() + lifetimeS });
    const value = await token.seal(keyring(r), 'cookie', session);
    const name = opened.scope === 'owner'
        ? request.cookieName(v.pod_base, v.pod)
        : request.portCookieName(v.pod_base, v.pod, v.app_port);
    return `${name}=${value}; Path=${v.pod_base}; Max-Age=${lifetimeS}; Secure; HttpOnly; SameSite=Lax`;
}

// Resolves to what a link's token says: { claims } or { reason }. A port's link is no sealed token, for it has to outlive
// keys and restarts of its pod: it names what the control plane wrote down, and is over when that is gone.
async function linked(r, text) {
    const v = r.variables;
    if (v.app_port !== '' && text.startsWith(PORT_LINK)) {
        const open = await openPort(r, v.pod, v.app_port);
        const named = { scope: `link:${v.app_port}`, session_id: text.slice(PORT_LINK.length) };
        return open !== null && claims.isOpenTo(open.claims, named) ? open : { reason: 'port_link' };
    }
    const opened = await claimsOf(r, 'url', v.pod, text);
    return v.pod_base === '/' && v.app_port !== '' ? ofScope(`port:${v.app_port}`, opened) : ofScope('owner', opened);
}

// Whether nobody has used this link before: each leaves a file, whose making is one step. compose.edge sweeps them.
function isFirstUse(r, text, expiresAt) {
    const name = require('crypto').createHash('sha256').update(text).digest('hex');
    try {
        fs.writeFileSync(`${r.variables.gate_used}/${name}`, String(expiresAt), { flag: 'wx', mode: 0o600 });
    } catch (e) {
        if (e.code === 'EEXIST') {
            return false;
        }
        throw e;
    }
    return true;
}

// Resolves to whether a link of limited use may still be redeemed by this browser.
async function mayRedeem(r, found, text) {
    const v = r.variables;
    if (found.reuse === 'any' || isFirstUse(r, text, found.expires_at)) {
        return true;
    }
    if (found.reuse === 'once') {
        return false;
    }
    const own = await session(r, v.pod, v.pod_base, v.http_cookie);
    return !own.reason && own.claims.session_id === found.session_id;
}

// What came in an address: { text, to }, the token and where the browser goes on, or { reason }.
function fromAddress(r) {
    const v = r.variables;
    if (r.method !== 'GET' && r.method !== 'HEAD') {
        return { reason: 'method' };
    }
    if (request.below(v.pod_base, v.request_uri) === null) {
        return { reason: 'path' };
    }
    return { text: v.arg_tkn, to: request.cleanLocation(v.request_uri) };
}

// The same of what a page has posted. No Origin is looked for: the page is the platform's, and the token is what counts.
function fromForm(r) {
    const v = r.variables;
    if (r.method !== 'POST' || !request.isVisit(v.http_sec_fetch_dest)) {
        return { reason: 'method' };
    }
    const to = request.afterForm(v.pod_base, v.request_uri);
    if (to === null) {
        return { reason: 'path' };
    }
    const text = request.postedToken(v.content_type, r.requestText);
    return text === '' ? { reason: 'form' } : { text: text, to: to };
}

// Resolves to '' once the cookie is set, otherwise to the reason for refusing.
async function exchange(r, text) {
    const opened = await linked(r, text);
    if (opened.reason) {
        return opened.reason;
    }
    // What only looks, as previews of links do, does not use a link up.
    if (opened.claims.reuse !== 'any' && r.method === 'HEAD') {
        return 'method';
    }
    const may = await mayRedeem(r, opened.claims, text);
    if (!may) {
        return 'used';
    }
    const cookie = await cookieFor(r, opened.claims);
    r.headersOut['Set-Cookie'] = [cookie];
    return '';
}

// A link's token becomes the cookie of its pod, and the browser goes on to an address without it.
async function redeemed(r, find) {
    let found = { reason: 'error' };
    let reason = 'error';
    try {
        found = find(r);
        reason = found.reason ? found.reason : await exchange(r, found.text);
    } catch (e) {
        // Not to the error log: its lines hold the request line, and that the token. The access log says `error`.
    }
    r.variables.gate_refusal = reason;
    if (reason === '') {
        r.return(303, found.to);
    } else {
        r.return(reason === 'used' ? 410 : 403);
    }
}

// js_content: of a link that was followed.
function redeem(r) {
    return redeemed(r, fromAddress);
}

// js_content: of one that a page has posted. The browser keeps addresses, and this one never had the token in it.
function post(r) {
    return redeemed(r, fromForm);
}

// Resolves to the cookie for what the control plane gave beside its answer; that token is for this proxy alone.
async function enteredCookie(r) {
    const v = r.variables;
    const opened = await claimsOf(r, 'url', v.pod, v.upstream_http_codepods_token);
    return opened.reason ? '' : await cookieFor(r, opened.claims);
}

// js_set $entered_cookie: empty unless the control plane lets the visitor in.
async function entered(r) {
    await 1;
    let cookie = '';
    try {
        cookie = await enteredCookie(r);
    } catch (e) {
        r.error(`entered: ${e}`);
    }
    r.setReturnValue(cookie);
}

// What the start page shows itself with to the control plane: the claims of the cookie, for this use only.
async function visitToken(r) {
    const v = r.variables;
    if (!request.isVisit(v.http_sec_fetch_dest)) {
        return '';
    }
    const opened = await session(r, v.pod, v.pod_base, v.http_cookie);
    if (opened.reason) {
        return '';
    }
    const expiresAt = Math.min(opened.claims.expires_at, nowS() + VISIT_S);
    return await token.seal(keyring(r), 'visit', Object.assign({}, opened.claims, { expires_at: expiresAt }));
}

// js_set $visit_token: empty unless somebody visits with the pod's cookie.
async function visit(r) {
    await 1;
    let text = '';
    try {
        text = await visitToken(r);
    } catch (e) {
        r.error(`visit: ${e}`);
    }
    r.setReturnValue(text);
}

// js_content: the page that waits for the pod. Without a token it only says how things are.
async function start(r) {
    const v = r.variables;
    let text = '';
    try {
        text = await visitToken(r);
    } catch (e) {
        r.error(`start: ${e}`);
    }
    const page = fs.readFileSync(v.gate_start_page).toString()
        .split('@TOKEN@').join(text)
        .split('@BASE@').join(v.pod_base)
        .split('@AUTO@').join(v.http_sec_fetch_dest === 'document' ? 'yes' : '');
    r.headersOut['Content-Type'] = 'text/html; charset=utf-8';
    r.return(503, page);
}

async function portToken(r) {
    const v = r.variables;
    const opened = await session(r, v.pod, v.pod_base, v.http_cookie);
    if (opened.reason) {
        v.gate_refusal = opened.reason;
        return '';
    }
    // Once: the browser writes the way by which it came into its files.
    const own = { scope: `port:${v.door_port}`, expires_at: nowS() + DOOR_S, reuse: 'once' };
    return await token.seal(keyring(r), 'url', Object.assign({}, opened.claims, own));
}

// js_content: from the pod's host name to the one of an application in it, with a token for just that.
async function door(r) {
    let text = '';
    try {
        text = await portToken(r);
    } catch (e) {
        r.error(`door: ${e}`);
    }
    if (text === '') {
        r.return(403);
    } else {
        const to = request.withLink(request.afterTo(r.variables.args), text);
        r.return(303, `https://${r.variables.door_port}--${r.variables.http_host}${to}`);
    }
}

export default { check, door, entered, post, redeem, start, visit };

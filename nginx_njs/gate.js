// The handlers that nginx calls. Everything that decides is in claims.js, request.js and token.js.

import fs from 'fs';
import claims from './claims.js';
import request from './request.js';
import token from './token.js';

// How long an open start page may ask. It waits for a restore or for room, and then is loaded anew.
const VISIT_S = 3600;

function nowS() {
    return Math.floor(Date.now() / 1000);
}

// Read each time (some microseconds): a rotated or revoked key counts with no reload.
function keyring(r) {
    return JSON.parse(fs.readFileSync(r.variables.gate_keyring));
}

// Resolves to { claims } or { reason }.
async function claimsOf(r, use, pod, text) {
    const opened = await token.open(keyring(r), use, pod, text);
    if (opened.reason) {
        return opened;
    }
    const v = r.variables;
    const reason = claims.problem(opened.claims, pod, nowS(), v.gate_networks, v.gate_ports);
    return reason ? { reason: reason } : opened;
}

// Resolves to what the cookie of this pod says: { claims } or { reason }.
async function session(r, pod, base, cookies) {
    const cookie = request.cookieValue(cookies, request.cookieName(base, pod));
    if (cookie === '') {
        return { reason: 'no_cookie' };
    }
    return await claimsOf(r, 'cookie', pod, cookie);
}

// Resolves to '' once the answer's headers are set, otherwise to the reason for refusing.
async function admit(r) {
    const cookies = r.headersIn['Cookie'];
    const opened = await session(r, r.headersIn['X-Gate-Pod'], r.headersIn['X-Gate-Base'], cookies);
    if (opened.reason) {
        return opened.reason;
    }
    const found = opened.claims;
    const headers = r.headersOut;
    headers['X-Gate-Cookie'] = request.podCookie(cookies, found.secret);
    headers['X-Gate-Session'] = found.session_id;
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
    const name = request.cookieName(v.pod_base, v.pod);
    return `${name}=${value}; Path=${v.pod_base}; Max-Age=${lifetimeS}; Secure; HttpOnly; SameSite=Lax`;
}

// Resolves to '' once the cookie is set, otherwise to the reason for refusing.
async function exchange(r) {
    if (r.method !== 'GET' && r.method !== 'HEAD') {
        return 'method';
    }
    if (request.below(r.variables.pod_base, r.variables.request_uri) === null) {
        return 'path';
    }
    const opened = await claimsOf(r, 'url', r.variables.pod, r.variables.arg_tkn);
    if (opened.reason) {
        return opened.reason;
    }
    const cookie = await cookieFor(r, opened.claims);
    r.headersOut['Set-Cookie'] = [cookie];
    return '';
}

// js_content: a link's token becomes the cookie of its pod, and the browser goes on to the address without it.
async function redeem(r) {
    let reason = 'error';
    try {
        reason = await exchange(r);
    } catch (e) {
        // Not to the error log: its lines hold the request line, and that the token. The access log says `error`.
    }
    r.variables.gate_refusal = reason;
    if (reason === '') {
        r.return(303, request.cleanLocation(r.variables.request_uri));
    } else {
        r.return(403);
    }
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

export default { check, redeem, start, visit };

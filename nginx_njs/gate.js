// The handlers that nginx calls. Everything that decides is in claims.js, request.js and token.js.

import fs from 'fs';
import claims from './claims.js';
import request from './request.js';
import token from './token.js';

function nowS() {
    return Math.floor(Date.now() / 1000);
}

// Read for each request (some microseconds): a rotated or revoked key counts at once, with no reload.
function keyring(r) {
    return JSON.parse(fs.readFileSync(r.variables.gate_keyring));
}

// Resolves to { claims } or { reason }.
async function claimsOf(r, use, text) {
    const opened = await token.open(keyring(r), use, r.variables.pod, text);
    if (opened.reason) {
        return opened;
    }
    const v = r.variables;
    const reason = claims.problem(opened.claims, v.pod, nowS(), v.gate_networks, v.gate_ports);
    return reason ? { reason: reason } : opened;
}

// Resolves to '' once the variables for proxy_pass are set, otherwise to the reason for refusing.
async function admit(r) {
    const v = r.variables;
    const target = request.below(v.pod_base, v.request_uri);
    if (target === null) {
        return 'path';
    }
    if (request.isFromElsewhere(r.method, v.pod_upgrade !== '', v.http_origin, v.http_sec_fetch_site, v.http_host)) {
        return 'origin';
    }
    const cookie = request.cookieValue(v.http_cookie, request.cookieName(v.pod_base, v.pod));
    if (cookie === '') {
        return 'no_cookie';
    }
    const opened = await claimsOf(r, 'cookie', cookie);
    if (opened.reason) {
        return opened.reason;
    }
    v.pod_cookie = request.podCookie(v.http_cookie, opened.claims.secret);
    v.pod_session = opened.claims.session_id;
    v.pod_target = target.path + request.withoutToken(target.query);
    v.pod_upstream = opened.claims.upstream;
    return '';
}

// js_set $gate: 'ok' or not. Whatever goes wrong, an exception too, is not 'ok'.
async function open(r) {
    // njs 0.8 would overwrite a return value set before the first await.
    await 1;
    let reason = 'error';
    try {
        reason = await admit(r);
    } catch (e) {
        r.error(`gate: ${e}`);
    }
    r.variables.gate_refusal = reason;
    r.setReturnValue(reason === '' ? 'ok' : 'refused');
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
    const opened = await claimsOf(r, 'url', r.variables.arg_tkn);
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

export default { open, redeem };

// Sealed tokens: v1.<key id>.<base64url(iv 12 | ciphertext | tag 16)>, AES-256-GCM.
// The other half is api/access_token.py; tests/njs holds both to the same answers.

// njs 0.7.9 knows no `await` inside arguments or literals, hence the many names below.

const IV_BYTES = 12;
const TAG_BYTES = 16;
const KEY_BYTES = 32;
const TOKEN_CHARS_MAX = 2048;

// The Buffer of base64url text, or null. Strict: one spelling for each value, so that no changed character
// of a token can go unnoticed (the last one carries spare bits). Reading passes
// over what is no base64url, so writing again shows that too; a pattern would cost more than both.
function fromBase64url(text) {
    if (typeof text !== 'string' || text === '') {
        return null;
    }
    const raw = Buffer.from(text, 'base64url');
    return raw.toString('base64url') === text ? raw : null;
}

// What the seal binds: purpose, key and pod. A token moved to another of these does not open.
function boundTo(use, kid, pod) {
    return Buffer.from(`codepods1|${use}|${kid}|${pod}`);
}

function parts(text) {
    if (typeof text !== 'string' || text.length > TOKEN_CHARS_MAX) {
        return null;
    }
    const pieces = text.split('.');
    if (pieces.length !== 3 || pieces[0] !== 'v1' || !/^[a-z0-9]{1,32}$/.test(pieces[1])) {
        return null;
    }
    const sealed = fromBase64url(pieces[2]);
    if (sealed === null || sealed.length <= IV_BYTES + TAG_BYTES) {
        return null;
    }
    return { kid: pieces[1], iv: sealed.slice(0, IV_BYTES), box: sealed.slice(IV_BYTES) };
}

// What every object inherits, such as `constructor`, is no text and so no key.
function rawKey(keyring, kid) {
    const raw = fromBase64url(keyring.keys[kid]);
    return raw !== null && raw.length === KEY_BYTES ? raw : null;
}

function importKey(raw, usage) {
    return crypto.subtle.importKey('raw', raw, { name: 'AES-GCM' }, false, [usage]);
}

// The id of the key that a token says it is sealed with.
function keyOf(text) {
    return text.split('.')[1];
}

// Resolves to { claims } or { reason }. The claims are authentic but not yet checked: see claims.js.
async function open(keyring, use, pod, text) {
    const token = parts(text);
    if (token === null) {
        return { reason: 'malformed' };
    }
    const raw = rawKey(keyring, token.kid);
    if (raw === null) {
        return { reason: 'unknown_key' };
    }
    const how = { name: 'AES-GCM', iv: token.iv, additionalData: boundTo(use, token.kid, pod) };
    try {
        const key = await importKey(raw, 'decrypt');
        const plain = await crypto.subtle.decrypt(how, key, token.box);
        return { claims: JSON.parse(Buffer.from(plain).toString()) };
    } catch (e) {
        return { reason: 'does_not_open' };
    }
}

async function seal(keyring, use, claims) {
    const kid = keyring.current;
    const raw = rawKey(keyring, kid);
    if (raw === null) {
        throw new Error('the current key is not in the keyring');
    }
    const iv = Buffer.alloc(IV_BYTES);
    crypto.getRandomValues(iv);
    const how = { name: 'AES-GCM', iv: iv, additionalData: boundTo(use, kid, claims.pod) };
    const key = await importKey(raw, 'encrypt');
    const box = await crypto.subtle.encrypt(how, key, Buffer.from(JSON.stringify(claims)));
    return `v1.${kid}.${Buffer.concat([iv, Buffer.from(box)]).toString('base64url')}`;
}

export default { keyOf, open, seal };

// Whether claims, once opened, may be acted on. Types are checked first: a list with one good string in it
// would pass a pattern by coercion.

const NAMES = ['epoch', 'expires_at', 'issued_at', 'pod', 'reuse', 'scope', 'secret', 'session_id', 'upstream', 'user'];
// 256 characters of Python's can be twice as many here.
const USER_UNITS_MAX = 512;

function isText(value, pattern) {
    return typeof value === 'string' && pattern.test(value);
}

function isCount(value) {
    return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

// The number of a strict dotted quad, or -1. Names, hex, octal, short forms and IPv6 are not read at all.
function addressNumber(text) {
    const parts = text.split('.');
    let number = parts.length === 4 ? 0 : -1;
    for (let i = 0; i < 4 && number >= 0; i++) {
        // Only the canonical spelling reads back as it was: no sign, blank, leading zero, hex or exponent.
        const part = Number(parts[i]);
        number = part >= 0 && part <= 255 && String(part) === parts[i] ? number * 256 + part : -1;
    }
    return number;
}

// network: "10.0.0.0/8"
function inNetwork(number, network) {
    const pieces = network.split('/');
    const first = addressNumber(pieces[0]);
    const block = Math.pow(2, 32 - Number(pieces[1]));
    return first >= 0 && Math.floor(number / block) === Math.floor(first / block);
}

// networks: "10.0.0.0/8,127.0.0.1/32"; ports: "20000-29999", both from the configuration, never from a request.
function isUpstream(value, networks, ports) {
    if (!isText(value, /^[0-9.]{7,15}:[1-9][0-9]{0,4}$/)) {
        return false;
    }
    const pieces = value.split(':');
    const number = addressNumber(pieces[0]);
    const range = ports.split('-');
    const port = Number(pieces[1]);
    return number >= 0
        && port >= Number(range[0])
        && port <= Number(range[1])
        && networks.split(',').some((network) => inNetwork(number, network));
}

function isForm(claims) {
    return typeof claims === 'object'
        && claims !== null
        && Object.keys(claims).sort().join() === NAMES.join()
        && typeof claims.user === 'string'
        && claims.user.length > 0
        && claims.user.length <= USER_UNITS_MAX
        && isCount(claims.epoch)
        && isCount(claims.expires_at)
        && isCount(claims.issued_at)
        && isText(claims.reuse, /^(any|browser|once)$/)
        && isText(claims.secret, /^[0-9a-f]{64}$/)
        && isText(claims.session_id, /^[A-Za-z0-9_-]{1,64}$/)
        && isText(claims.scope, /^(owner|(port|link|public):[1-9][0-9]{0,4})$/);
}

// Whether a port that is open to others is open to somebody with these claims, or with none.
function isOpenTo(open, shown) {
    if (open.scope.startsWith('public:')) {
        return true;
    }
    return open.scope.startsWith('link:')
        && shown !== undefined
        && shown.scope === open.scope
        && shown.session_id === open.session_id;
}

// '' when these claims give access to this pod now, otherwise why not, in a word for the log.
function problem(claims, pod, nowS, networks, ports) {
    if (!isForm(claims)) {
        return 'claims';
    }
    if (claims.pod !== pod) {
        return 'another_pod';
    }
    if (claims.expires_at <= nowS) {
        return 'expired';
    }
    return isUpstream(claims.upstream, networks, ports) ? '' : 'upstream';
}

// before: subject → the second up to which what was issued is revoked.
function isBefore(before, subject, issuedAt) {
    return Object.prototype.hasOwnProperty.call(before, subject) && issuedAt <= before[subject];
}

// revoked: the file of revocations; state/revoked.py is the other half. Keys are not asked for here: a revoked one
// is taken out of the ring.
function isRevoked(claims, revoked) {
    return isBefore(revoked.pod, claims.pod, claims.issued_at)
        || isBefore(revoked.session, claims.session_id, claims.issued_at)
        || isBefore(revoked.user, claims.user, claims.issued_at);
}

export default { isOpenTo, isRevoked, isUpstream, problem };

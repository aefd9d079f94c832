// What a request says, read from its raw parts.

// base: where the pod's pages begin: "/pods/<pod>/" with a path for each pod, "/" with a host name for each.
function cookieName(base, pod) {
    return base === '/' ? '__Host-codepods' : `__Secure-codepods-${pod}`;
}

// { path, query } as the pod should see them, nothing decoded; null if the raw path is not below base.
// nginx chose the location by the decoded and merged path: `/pods/b/../a/x` must not pass as pod a's.
function below(base, requestUri) {
    const mark = requestUri.indexOf('?');
    const path = mark < 0 ? requestUri : requestUri.slice(0, mark);
    if (!path.startsWith(base)) {
        return null;
    }
    return { path: '/' + path.slice(base.length), query: mark < 0 ? '' : requestUri.slice(mark + 1) };
}

function decoded(name) {
    try {
        return decodeURIComponent(name).toLowerCase();
    } catch (e) {
        return name;
    }
}

// Whatever spells `tkn` is ours, and never goes further than this proxy.
function withoutToken(query) {
    const kept = query.split('&').filter((pair) => decoded(pair.split('=')[0]) !== 'tkn').join('&');
    return kept === '' ? '' : '?' + kept;
}

// Several slashes or a backslash at the front would make a Location that leads to another host.
function cleanLocation(requestUri) {
    const parts = below('/', requestUri);
    return '/' + parts.path.replace(/^[\/\\]+/, '') + withoutToken(parts.query);
}

function cookiePairs(header) {
    return (header || '').split(';').map((pair) => pair.trim()).filter((pair) => pair.indexOf('=') > 0);
}

function nameOf(pair) {
    return pair.slice(0, pair.indexOf('=')).trim();
}

// The one value of this cookie; '' if there is none, or more than one (then somebody else put one there).
function cookieValue(header, name) {
    const found = cookiePairs(header).filter((pair) => nameOf(pair) === name);
    return found.length === 1 ? found[0].slice(found[0].indexOf('=') + 1).trim() : '';
}

function isOurs(name) {
    const lower = name.toLowerCase();
    return lower.startsWith('__host-codepods')
        || lower.startsWith('__secure-codepods-')
        || lower.startsWith('code-server-session');
}

// The Cookie header for the pod: its session first, then the browser's, without ours and without any session
// of the browser's own making. Applications that run in the pod keep theirs.
function podCookie(header, secret) {
    const kept = cookiePairs(header).filter((pair) => !isOurs(nameOf(pair)));
    return [`code-server-session=${secret}`].concat(kept).join('; ');
}

// A page elsewhere may not open this pod's sockets or change things in it. SameSite=Lax does not say so for
// pages of the same site: another pod's host name, or an application on another port of this one.
function isFromElsewhere(method, isSocket, origin, fetchSite, host) {
    const harmless = !isSocket && ['GET', 'HEAD', 'OPTIONS'].includes(method);
    if (harmless || !origin) {
        return false;
    }
    if (origin === 'null') {
        return fetchSite !== 'same-origin';
    }
    return origin.toLowerCase() !== 'https://' + (host || '').toLowerCase();
}

export default { below, cleanLocation, cookieName, cookieValue, isFromElsewhere, podCookie, withoutToken };

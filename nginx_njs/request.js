// What a request says, read from its raw parts.

// base: where the pod's pages begin: "/pods/<pod>/" with a path for each pod, "/" with a host name for each.
function cookieName(base, pod) {
    return base === '/' ? '__Host-codepods' : `__Secure-codepods-${pod}`;
}

// Of one application: its host name has but one, and a path is shared with all of the pod. A pod's name begins with no
// dash, so that no pod has a cookie of this name.
function portCookieName(base, pod, port) {
    return base === '/' ? '__Host-codepods' : `__Secure-codepods--${port}-${pod}`;
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
    if (query === '') {
        return '';
    }
    const kept = query.split('&').filter((pair) => decoded(pair.split('=')[0]) !== 'tkn').join('&');
    return kept === '' ? '' : '?' + kept;
}

// Several slashes or a backslash at the front would make a Location that leads to another host.
function cleanLocation(requestUri) {
    const parts = below('/', requestUri);
    return '/' + parts.path.replace(/^[\/\\]+/, '') + withoutToken(parts.query);
}

// Plain loops here: this runs at each request, and in njs a chain of closures costs more.
function cookiePairs(header) {
    const pairs = [];
    const parts = (header || '').split(';');
    for (let i = 0; i < parts.length; i++) {
        const pair = parts[i].trim();
        if (pair.indexOf('=') > 0) {
            pairs.push(pair);
        }
    }
    return pairs;
}

function nameOf(pair) {
    return pair.slice(0, pair.indexOf('=')).trim();
}

// The one value of this cookie; '' if there is none, or more than one (then somebody else put one there).
function cookieValue(header, name) {
    const pairs = cookiePairs(header);
    let found = '';
    for (let i = 0; i < pairs.length; i++) {
        if (pairs[i].startsWith(name) && nameOf(pairs[i]) === name) {
            if (found !== '') {
                return '';
            }
            found = pairs[i];
        }
    }
    return found.slice(found.indexOf('=') + 1).trim();
}

// Names begin a pair, and none of these prefixes holds a `=`: a pair that begins so has a name that does.
const OURS = /^(__host-codepods|__secure-codepods-|code-server-session)/i;

// The Cookie header for the pod: its session first, then the browser's, without ours and without any session
// of the browser's own making. Applications that run in the pod keep theirs.
function podCookie(header, secret) {
    const pairs = cookiePairs(header);
    let sent = `code-server-session=${secret}`;
    for (let i = 0; i < pairs.length; i++) {
        if (!OURS.test(pairs[i])) {
            sent += `; ${pairs[i]}`;
        }
    }
    return sent;
}

// What comes after `to=`, whole: it is an address, with a query of its own. '/' if it is none.
function afterTo(args) {
    const at = (args || '').indexOf('to=');
    return at === 0 && args[3] === '/' ? args.slice(3) : '/';
}

// The address with a link's token, and without one that it came with.
function withLink(requestUri, token) {
    const clean = cleanLocation(requestUri);
    const mark = clean.indexOf('?');
    return mark < 0 ? `${clean}?tkn=${token}` : `${clean.slice(0, mark)}?tkn=${token}&${clean.slice(mark + 1)}`;
}

// Where a posted link leads: to the pod's first page, with the query that came. null: not the form's own address.
function afterForm(base, requestUri) {
    const asked = below(base, requestUri);
    return asked !== null && asked.path === '/_start/open' ? base + withoutToken(asked.query) : null;
}

// The one field of a form; '' if it is none of ours. Whatever follows the token, such as another field, stays with
// it, and so it does not open.
function postedToken(contentType, body) {
    const isForm = /^application\/x-www-form-urlencoded *(;|$)/i.test(contentType || '');
    return isForm && typeof body === 'string' && body.startsWith('tkn=') ? body.slice(4) : '';
}

// Somebody looks at a page of its own: no frame, script or socket. Browsers from before Fetch Metadata do not say.
function isVisit(fetchDest) {
    return !fetchDest || fetchDest === 'document';
}

export default {
    afterForm, afterTo, below, cleanLocation, cookieName, cookieValue, isVisit, podCookie, portCookieName, postedToken,
    withLink, withoutToken,
};

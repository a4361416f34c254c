package proxy

import (
	"net/http"
	"strings"
)

// cookieSpace is what parsers trim off names and values; other space is refused
// before it gets here, by net/http or by browsers.
const cookieSpace = " \t"

// cookieName returns the name in one cookie of a Cookie header, or in a
// Set-Cookie header. A nameless cookie ("=sid=x") goes by the name that its value
// begins with, since browsers send it back as "sid=x".
func cookieName(cookie string) string {
	name, _, _ := strings.Cut(strings.TrimLeft(cookie, cookieSpace+"="), "=")
	return strings.TrimRight(name, cookieSpace)
}

// stripCookies removes the cookies that owns claims, so that no upstream sees
// them (RFC 10017, section 6.1.1, step K), and leaves all others byte for byte.
// It changes the header's slice in place: h must be a copy of its own.
//
// A semicolon ends a cookie even between quotes, as in RFC 6265, section 5.4. To
// honour quotes would let one planted cookie hide ours: a="; sid=secret.
func stripCookies(h http.Header, owns func(name string) bool) {
	lines, found := h["Cookie"], false
	for _, line := range lines {
		found = found || holds(line, owns)
	}
	if !found {
		return
	}
	size := 0
	for _, line := range lines {
		size += len(line)
	}
	var b strings.Builder
	kept := lines[:0]
	for _, line := range lines {
		if holds(line, owns) {
			line = without(line, owns, &b, size)
			if strings.Trim(line, cookieSpace+";") == "" {
				continue
			}
		}
		kept = append(kept, line)
	}
	if len(kept) == 0 {
		delete(h, "Cookie")
		return
	}
	h["Cookie"] = kept
}

// holds tells whether owns claims a cookie of a line.
func holds(line string, owns func(name string) bool) bool {
	for more := true; more; {
		var cookie string
		cookie, line, more = strings.Cut(line, ";")
		if owns(cookieName(cookie)) {
			return true
		}
	}
	return false
}

// without returns a line less the cookies that owns claims, written to b, which
// grows to size once: the one allocation, and none if nothing is left.
func without(line string, owns func(name string) bool, b *strings.Builder, size int) string {
	start, kept := b.Len(), 0
	for more := true; more; {
		var cookie string
		cookie, line, more = strings.Cut(line, ";")
		if owns(cookieName(cookie)) {
			continue
		}
		if b.Cap() == 0 {
			b.Grow(size)
		}
		if kept++; kept > 1 {
			b.WriteByte(';')
		}
		b.WriteString(cookie)
	}
	// HTTP/2 refuses a value with space around it (RFC 9113, section 8.2.1).
	return strings.Trim(b.String()[start:], cookieSpace)
}

// ownsSetCookie tells whether a Set-Cookie line of an upstream names a cookie of
// the gateway's, also as a nameless cookie whose value looks like one. To judge
// case-insensitively, as browsers judge cookie name prefixes, owns has to:
// ownsFolded makes one.
func ownsSetCookie(line string, owns func(name string) bool) bool {
	cookie, _, _ := strings.Cut(line, ";")
	return owns(cookieName(cookie))
}

// ownsFolded claims the session cookie's name and the names made of it, in any
// case. It is for what upstreams set, where refusing too much harms nobody; what
// browsers send is judged by session.App.OwnsCookie, to the letter.
func ownsFolded(sessionCookie string) func(name string) bool {
	return func(name string) bool {
		if len(name) < len(sessionCookie) || !strings.EqualFold(name[:len(sessionCookie)], sessionCookie) {
			return false
		}
		rest := name[len(sessionCookie):]
		return rest == "" || rest[0] == '-'
	}
}

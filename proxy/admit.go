package proxy

import (
	"net/http"
	"strings"
)

// csrfError is the refusal of a request that a foreign site may have caused.
type csrfError string

const (
	admitted         csrfError = ""
	errHeaderMissing csrfError = "csrf_header_missing"
	errOriginDenied  csrfError = "origin_denied"
)

func (e csrfError) Error() string { return "proxy: " + string(e) }

// Code is the code of the answer (DESIGN.md, section 7).
func (e csrfError) Code() string { return string(e) }

// site says which origins a request may come from.
type site struct {
	origin string
	listed map[string][]string // cors.origins, each as the value of Access-Control-Allow-Origin
}

// sign is what one header field tells about where a request comes from.
type sign uint8

const (
	absent  sign = iota
	same         // from our own origin, or a listed one
	byUser       // from nobody: typed, or a bookmark
	foreign      // from anywhere else, a sibling origin included (CSRF-05)
)

// signs reads Sec-Fetch-Site and Origin, either of which browsers may leave out.
//
// A field that is there twice or has an unknown value counts as absent, and the
// other decides; a foreign value counts wherever it stands. An origin on the
// list makes up for Sec-Fetch-Site, which calls it foreign rightly.
func (s site) signs(h http.Header) (fetch, origin sign) {
	fetch = agreed(h["Sec-Fetch-Site"], fetchSite)
	origin = agreed(h["Origin"], s.originSign)
	if fetch == foreign && origin == same && s.listed[h["Origin"][0]] != nil {
		fetch = absent
	}
	return fetch, origin
}

func agreed(values []string, read func(string) sign) sign {
	if len(values) == 1 {
		return read(values[0])
	}
	for _, v := range values {
		if read(v) == foreign {
			return foreign
		}
	}
	return absent
}

func fetchSite(v string) sign {
	switch v {
	case "same-origin":
		return same
	case "none":
		return byUser
	case "same-site", "cross-site":
		return foreign
	}
	return absent
}

// originSign compares whole origins, byte by byte: there is nothing to parse,
// so nothing to parse wrongly. "null" is foreign (CSRF-06).
func (s site) originSign(v string) sign {
	switch {
	case v == "":
		return absent
	case v == s.origin || s.listed[v] != nil:
		return same
	}
	return foreign
}

// admitRoute decides whether a request to a route may have an effect (DESIGN.md,
// section 7, "CSRF"). It is all that stands between a foreign site and a
// session, so it looks at nothing but the request, and runs before anything that
// could be seen from outside.
//
// It fails open in two places, both of which no browser of today reaches: the
// header rule takes X-CSRF without Fetch Metadata and Origin, as the header
// alone needs a preflight that we do not grant; the origin rule passes safe
// methods without either.
func admitRoute(rule CSRF, method string, h http.Header, s site) csrfError {
	fetch, origin := s.signs(h)
	positive := fetch != foreign && origin != foreign && (fetch == same || origin == same)
	if isHandshake(method, h) {
		// No page can give a handshake a header, and no browser keeps it from
		// foreign ones (CSRF-12).
		if !positive {
			return errOriginDenied
		}
		return admitted
	}
	if rule == CSRFOrigin {
		return admitByOrigin(method, h, fetch, origin)
	}
	switch {
	case fetch == foreign || origin == foreign:
		return errOriginDenied
	case hasCSRFHeader(h):
		return admitted
	case positive && isEventSource(method, h):
		return admitted // EventSource cannot send headers either (CSRF-13)
	}
	return errHeaderMissing
}

func admitByOrigin(method string, h http.Header, fetch, origin sign) csrfError {
	switch {
	case isDocument(h) && (method == http.MethodGet || method == http.MethodHead):
		return admitted // a link from anywhere
	case fetch == foreign || origin == foreign:
		return errOriginDenied
	case fetch == absent && origin == absent && !isSafe(method):
		return errOriginDenied
	}
	return admitted
}

// admitEndpoint decides the same for an endpoint of our own, where cors.origins
// never count.
func admitEndpoint(class Class, h http.Header, origin string) csrfError {
	switch class {
	case Provider, Public:
		return admitted // the one proves itself by what it sends, the other is no secret
	case Navigation:
		// A prefetch of the logout link must not log out, nor may any page begin logins:
		// of the requests that it can cause only a WebSocket's has no Fetch Metadata.
		if isPrefetch(h) || hasFetchMetadata(h) && !isDocument(h) || isHandshake(http.MethodGet, h) {
			return errOriginDenied
		}
		return admitted
	}
	fetch, from := site{origin: origin}.signs(h)
	switch {
	case fetch == foreign || fetch == byUser || from == foreign:
		return errOriginDenied
	case class == Events && fetch != same && from != same:
		return errOriginDenied // EventSource cannot send headers (CSRF-13)
	case class == Script && !hasCSRFHeader(h):
		return errHeaderMissing
	}
	return admitted
}

// isNavigation tells a document navigation from everything that a script, an
// image or a prefetch does (DESIGN.md, section 12).
func isNavigation(method string, h http.Header) bool {
	if method != http.MethodGet && method != http.MethodHead || isHandshake(method, h) {
		return false
	}
	if hasFetchMetadata(h) {
		return isDocument(h)
	}
	return accepts(h, "text/html")
}

// isPrefetch tells what a browser loads before the user asks for it. The fields
// of old browsers have other uses too, so their values count.
func isPrefetch(h http.Header) bool {
	if len(h["Sec-Purpose"]) > 0 {
		return true
	}
	for _, name := range [...]string{"Purpose", "X-Purpose", "X-Moz"} {
		for _, word := range [...]string{"prefetch", "prerender", "preview"} {
			if hasToken(h[name], word) {
				return true
			}
		}
	}
	return false
}

func hasFetchMetadata(h http.Header) bool {
	return len(h["Sec-Fetch-Mode"]) > 0 || len(h["Sec-Fetch-Dest"]) > 0 || len(h["Sec-Fetch-Site"]) > 0
}

func isDocument(h http.Header) bool {
	return is(h["Sec-Fetch-Mode"], "navigate") && is(h["Sec-Fetch-Dest"], "document")
}

func is(values []string, want string) bool { return len(values) == 1 && values[0] == want }

func isSafe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// hasCSRFHeader tells whether X-CSRF is there; any value but none will do.
func hasCSRFHeader(h http.Header) bool {
	for _, v := range h["X-Csrf"] {
		if v != "" {
			return true
		}
	}
	return false
}

// isHandshake tells whether a request would open a WebSocket (RFC 6455, section
// 4.1).
func isHandshake(method string, h http.Header) bool {
	return len(h["Upgrade"]) > 0 && method == http.MethodGet &&
		len(h["Upgrade"]) == 1 && strings.EqualFold(strings.TrimSpace(h["Upgrade"][0]), "websocket") &&
		hasToken(h["Connection"], "upgrade")
}

// overrides tells whether a header names another method, which some upstreams obey
// in place of the request line's, and which the route does not allow (CSRF-11).
func (rt *route) overrides(h http.Header) bool {
	if len(rt.methods) == 0 {
		return false
	}
	for name, values := range h {
		switch fold(name) {
		case "X-Http-Method-Override", "X-Http-Method", "X-Method-Override":
			for _, v := range values {
				if !rt.allows(strings.ToUpper(strings.TrimSpace(v))) {
					return true
				}
			}
		}
	}
	return false
}

func isEventSource(method string, h http.Header) bool {
	return method == http.MethodGet && accepts(h, "text/event-stream")
}

// accepts tells whether Accept names a media type, wildcards not counted.
func accepts(h http.Header, mediaType string) bool {
	for _, line := range h["Accept"] {
		for item := range strings.SplitSeq(line, ",") {
			name, _, _ := strings.Cut(item, ";")
			if strings.EqualFold(strings.TrimSpace(name), mediaType) {
				return true
			}
		}
	}
	return false
}

// hasToken tells whether a comma-separated list holds a token.
func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		for item := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(item, " \t"), token) {
				return true
			}
		}
	}
	return false
}
